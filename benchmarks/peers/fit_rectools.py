"""RecTools' SASRec with RecTools' default settings but for the number of epochs.

Training is doubled in length for as long as that brings a better NDCG@10 on the validation rows;
then the model is trained for as many epochs on all training rows.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from exchange import Fitted, K, Lists, Rows, command
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import NDCG
from rectools.models import SASRecModel

FIRST_EPOCHS, MAX_EPOCHS = 10, 160
MODELS = {"SASRec": SASRecModel}


def fit(model: str, rows: Rows, seed: int, folder: Path) -> Fitted:
    """Choose the number of epochs, fit on all rows, and list items for every user."""
    os.chdir(folder)  # Lightning writes its logs into the working directory
    pl.seed_everything(seed)
    dataset = _dataset(rows.fit)
    validation = rows.validation.rename(columns={"user_id": Columns.User, "item_id": Columns.Item})
    trial, trained, best, epochs = MODELS[model](), 0, -1.0, FIRST_EPOCHS
    while epochs <= MAX_EPOCHS:
        trial.fit_partial(dataset, epochs - trained, epochs - trained)
        trained = epochs
        found = trial.recommend(validation[Columns.User].unique(), dataset, 10, filter_viewed=True)
        value = NDCG(k=10).calc(found, validation)
        if value <= best:
            break
        best, epochs = value, 2 * epochs
    epochs //= 2
    pl.seed_everything(seed)
    final, dataset = MODELS[model](epochs=epochs), _dataset(rows.train)
    final.fit(dataset)
    users = rows.train["user_id"].unique()
    # A user of a single event has no target to train on, but still a history.
    found = final.recommend(users, dataset, K, filter_viewed=True, on_unsupported_targets="warn")
    items = np.zeros((len(users), K), dtype=np.int64)
    row = pd.Index(users).get_indexer(found[Columns.User])
    items[row, found[Columns.Rank].to_numpy() - 1] = found[Columns.Item]
    return Fitted(Lists(users, items), epochs)


def _dataset(rows: pd.DataFrame) -> Dataset:
    interactions = pd.DataFrame(
        {
            Columns.User: rows["user_id"],
            Columns.Item: rows["item_id"],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(rows["timestamp"], unit="s"),
        }
    )
    return Dataset.construct(interactions)


if __name__ == "__main__":
    command(fit, "rectools")
