"""RecBole's general recommenders (MultiVAE, LightGCN, ...) with RecBole's default settings.

Epochs are chosen by RecBole's early stopping on the validation rows; then the model is trained for
as many on all training rows.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from exchange import Fitted, K, Lists, Rows, command
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.utils import get_model, get_trainer, init_seed
from scipy.sparse import dok_matrix

BATCH_SIZE = 256

# RecBole 1.2.1's LightGCN calls a method that the SciPy which RecTools asks for no longer has.
dok_matrix._update = lambda self, entries: self._dict.update(entries)


def fit(model: str, rows: Rows, seed: int, folder: Path) -> Fitted:
    """Choose the number of epochs, fit on all rows, and list items for every user."""
    os.chdir(folder)  # RecBole writes its logs into the working directory
    scores: dict[int, float] = {}
    _train(model, "chosen", rows.fit, rows.validation, seed, scores)
    epochs = max(scores, key=scores.__getitem__) + 1
    # Nothing is evaluated from here on, but RecBole wants a file of each part.
    network, dataset = _train(model, "final", rows.train, rows.train.head(1), seed, None, epochs)
    return Fitted(_lists(network, dataset), epochs)


def _train(
    model: str,
    name: str,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    seed: int,
    scores: dict[int, float] | None,
    epochs: int = 300,
) -> tuple[Any, Any]:
    """Train; with ``scores``, until ten epochs bring nothing, noting the score of each epoch.

    Returns:
        The trained network and RecBole's data set of the training rows.
    """
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    header = "user_id:token\titem_id:token"
    for part, frame in (("train", train), ("valid", validation), ("test", validation)):
        lines = frame["user_id"].astype(str) + "\t" + frame["item_id"].astype(str)
        (folder / f"{name}.{part}.inter").write_text("\n".join([header, *lines]) + "\n")
    settings = {
        "data_path": str(Path.cwd()),
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id"]},
        "seed": seed,
        "epochs": epochs,
        "use_gpu": False,
        "show_progress": False,
        "state": "WARNING",
        "metrics": ["NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        # RecBole's own defaults but for models without sampled negatives.
        **({"train_neg_sample_args": None} if model.endswith(("VAE", "DAE")) else {}),
    }
    config = Config(model=model, dataset=name, config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    train_data, valid_data, _ = data_preparation(config, create_dataset(config))
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    network = get_model(model)(config, train_data.dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], model)(config, network)
    trainer.fit(
        train_data,
        valid_data if scores is not None else None,
        verbose=False,
        saved=False,
        callback_fn=scores.__setitem__ if scores is not None else None,
    )
    return network, train_data.dataset


@torch.no_grad()
def _lists(network: Any, dataset: Any) -> Lists:
    """The best items of each user that the user has not had."""
    network.eval()
    users = torch.arange(1, dataset.user_num)  # 0 is padding
    seen = torch.zeros((dataset.user_num, dataset.item_num), dtype=torch.bool)
    seen[dataset.inter_feat["user_id"], dataset.inter_feat["item_id"]] = True
    seen[:, 0] = True
    best = []
    for batch in users.split(BATCH_SIZE):
        scores = network.full_sort_predict(Interaction({"user_id": batch})).view(len(batch), -1)
        values, items = scores.masked_fill(seen[batch], -torch.inf).topk(K)
        best.append(torch.where(values > -torch.inf, items, 0))
    to_item = np.array([0, *dataset.field2id_token["item_id"][1:].astype(np.int64)])
    to_user = dataset.field2id_token["user_id"][1:].astype(np.int64)
    return Lists(to_user, to_item[torch.cat(best).numpy()])


if __name__ == "__main__":
    command(fit, "recbole")
