"""Queries such as will come, to fit and to measure an index by."""

import numpy as np
import torch

from recsys.data.histories import Histories
from recsys.index.exclusions import Embeddings
from recsys.models.two_tower import TwoTowerEnsemble

NUM_QUERIES = 2_000
_AT_A_TIME = 100
_FEW = 10
"""Half of the histories are cut to fewer events than so many, as those of newcomers are."""
_SEED = 0


@torch.inference_mode()
def sample_queries(model: TwoTowerEnsemble, histories: Histories, max_history: int) -> Embeddings:
    """Query embeddings float32 [n, D] of users drawn at random, in random order.

    Args:
        model: in evaluation mode, on the CPU. max_history: the latest events that count.
    """
    rng = np.random.default_rng(_SEED)
    users = np.flatnonzero(histories.lengths)
    users = rng.permutation(users)[:NUM_QUERIES]
    most = np.where(rng.random(len(users)) < 0.5, rng.integers(1, _FEW, len(users)), max_history)
    queries = [np.zeros((0, sum(model.embedding_dims)), np.float32)]
    for start in range(0, len(users), _AT_A_TIME):
        some = slice(start, start + _AT_A_TIME)
        batch = histories.pad(users[some], max_history)
        places = torch.arange(batch.mask.shape[1])
        mask = batch.mask & (places < torch.from_numpy(most[some])[:, None])
        query = model.query(batch.item_idx * mask, mask, batch.context, batch.weights)
        queries.append(query.float().numpy())
    return np.concatenate(queries)
