"""How much later events of a history count more than earlier ones: chosen on validation events.

Where order tells something, as in a shop, the latest events say most about the next; where it does
not, as with films rated in one sitting, they say no more than others. Weights of the towers stay as
they are: only what a query is made of changes.
"""

import logging
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recsys.data.histories import Histories
from recsys.evaluation import paired_bootstrap
from recsys.metrics import hit_matrix, ndcg_at_k, recall_at_k
from recsys.models.two_tower import TwoTowerEnsemble

log = logging.getLogger(__name__)

HALF_LIVES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""In events, of what an event counts in a query; tried beside none at all."""
LEAST_RECALL = 0.98
"""Of recall@100 without, that must stay: stage 2 chooses from what is found there."""
_TOP, _DEPTH, _MOST_USERS, _AT_A_TIME = 10, 100, 4_000, 100


class Scores(NamedTuple):
    """By user: float64 [U]."""

    ndcg: Tensor
    recall: Tensor


@torch.inference_mode()
def choose_half_life(
    model: TwoTowerEnsemble,
    remaining: Histories,
    held_out: Histories,
    max_history: int,
    seed: int,
) -> float | None:
    """The half-life in events with the best NDCG@10; None where none is better for certain.

    Args:
        model: trained on ``remaining``, in evaluation mode, on the CPU; its scales are set anew.
        seed: of the users that are looked at, where there are many.
    """
    users = np.flatnonzero((held_out.lengths > 0) & (remaining.lengths > 0))
    users = np.random.default_rng(seed).permutation(users)[:_MOST_USERS]
    times = remaining.timestamps
    if not len(users) or times.min() == times.max():  # there is no order
        return None
    by_option = {
        half_life: validation_scores(model, half_life, remaining, held_out, users, max_history)
        for half_life in (None, *HALF_LIVES)
    }
    without = by_option[None]
    best, best_ndcg = None, float(without.ndcg.mean())
    for half_life, found in by_option.items():
        low = paired_bootstrap((found.ndcg - without.ndcg)[:, None].numpy(), seed)[0, 0]
        keeps = found.recall.mean() >= LEAST_RECALL * without.recall.mean()
        if low > 0 and keeps and float(found.ndcg.mean()) > best_ndcg:
            best, best_ndcg = half_life, float(found.ndcg.mean())
    log.info(
        "stage 1: validation NDCG@10 %.4f with all events alike; %s",
        float(without.ndcg.mean()),
        "no half-life is better for certain"
        if best is None
        else f"{best_ndcg:.4f} with a half-life of {best:g} events",
    )
    return best


def validation_scores(
    model: TwoTowerEnsemble,
    half_life: float | None,
    remaining: Histories,
    held_out: Histories,
    users: np.ndarray,
    max_history: int,
) -> Scores:
    """Of users [U] by a model; its half-life and its scales are set."""
    model.half_life = half_life
    sample = remaining.pad(users[: 10 * _AT_A_TIME], max_history)
    model.standardize(sample.item_idx, sample.mask, sample.context)
    candidates = model.all_candidates()
    ndcg, recall = [], []
    for start in range(0, len(users), _AT_A_TIME):
        some = users[start : start + _AT_A_TIME]
        history, wanted = remaining.pad(some, max_history), held_out.pad(some)
        scores = model.query(history.item_idx, history.mask, history.context) @ candidates.T
        scores = scores.scatter(1, history.item_idx, -torch.inf)
        scores[:, 0] = -torch.inf
        ranked = scores.topk(min(_DEPTH, scores.shape[1] - 1), dim=1).indices
        rows, places = wanted.mask.nonzero(as_tuple=True)
        hits = hit_matrix(ranked, rows, wanted.item_idx[rows, places], model.num_items)
        number = wanted.mask.sum(dim=1)
        ndcg.append(ndcg_at_k(hits, number, _TOP))
        recall.append(recall_at_k(hits, number, _DEPTH))
    return Scores(torch.cat(ndcg).double(), torch.cat(recall).double())
