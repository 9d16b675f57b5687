"""How well an ensemble ranks validation events, and whether one is better than another."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.histories import Histories
from recsys.metrics import (
    graded_ndcg_at_k,
    hit_matrix,
    ndcg_at_k,
    recall_at_k,
    weighted_recall_at_k,
)
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.schema import HistoryBatch

LEAST_RECALL = 0.98
"""Of recall@100 before, that must stay: stage 2 chooses from what is found there."""
_CHANCE = 0.025
"""That what is no better is taken for better."""
_TOP, _DEPTH, _MOST_USERS, _AT_A_TIME = 10, 100, 4_000, 100


class Scores(NamedTuple):
    """NDCG@10 and recall@100 by user: float64 [U].

    Where held-out events weigh differently, they count as they weigh.
    """

    ndcg: Tensor
    recall: Tensor


@dataclass(frozen=True)
class Validation:
    """Users with events to learn from and events to tell.

    remaining: what models are trained on. held_out: what they are to rank first. users: int64 [U].
    max_history: the latest events that a query is made of.
    """

    remaining: Histories
    held_out: Histories
    users: NDArray[np.int64]
    max_history: int

    @classmethod
    def of(
        cls, remaining: Histories, held_out: Histories, max_history: int, seed: int
    ) -> "Validation":
        """All users, or where there are many, some of them."""
        users = np.flatnonzero((held_out.lengths > 0) & (remaining.lengths > 0))
        users = np.random.default_rng(seed).permutation(users)[:_MOST_USERS]
        return cls(remaining, held_out, users, max_history)

    @torch.inference_mode()
    def scores(self, model: TwoTowerEnsemble) -> Scores:
        """Of a model in evaluation mode, on the CPU; its scales are set anew."""
        sample = self.remaining.pad(self.users[: 10 * _AT_A_TIME], self.max_history)
        model.standardize(sample.item_idx, sample.mask, sample.context, sample.weights)
        candidates = model.all_candidates()
        found = []
        for start in range(0, len(self.users), _AT_A_TIME):
            some = self.users[start : start + _AT_A_TIME]
            history, wanted = self.remaining.pad(some, self.max_history), self.held_out.pad(some)
            query = model.query(history.item_idx, history.mask, history.context, history.weights)
            scores = (query @ candidates.T).scatter(1, history.item_idx, -torch.inf)
            scores[:, 0] = -torch.inf
            ranked = scores.topk(min(_DEPTH, scores.shape[1] - 1), dim=1).indices
            found.append(_scores(ranked, wanted, model.num_items))
        ndcg, recall = (torch.cat(parts).double() for parts in zip(*found, strict=True))
        return Scores(ndcg, recall)

    def is_better(self, found: Scores, before: Scores, tried: int) -> bool:
        """Whether the NDCG@10 is higher for certain, and the recall@100 not much lower.

        Args:
            tried: how many were compared with ``before``, this one the best of them: the more, the
                likelier one is better by chance (Bonferroni).
        """
        difference = found.ndcg - before.ndcg
        if len(difference) < 2:
            return False
        error = float(difference.std()) / len(difference) ** 0.5
        enough = NormalDist().inv_cdf(1.0 - _CHANCE / tried) * error
        is_higher = float(difference.mean()) > enough
        return is_higher and bool(found.recall.mean() >= LEAST_RECALL * before.recall.mean())


def _scores(ranked: Tensor, wanted: HistoryBatch, num_items: int) -> Scores:
    """Of lists int64 [B, K]; wanted: the held-out events [B, T]."""
    if wanted.weights is None:
        rows, places = wanted.mask.nonzero(as_tuple=True)
        hits = hit_matrix(ranked, rows, wanted.item_idx[rows, places], num_items)
        number = wanted.mask.sum(dim=1)
        return Scores(ndcg_at_k(hits, number, _TOP), recall_at_k(hits, number, _DEPTH))
    by_item = torch.zeros(len(ranked), num_items + 1)
    by_item.scatter_add_(1, wanted.item_idx, wanted.weights)
    gains = by_item.gather(1, ranked)
    return Scores(
        graded_ndcg_at_k(gains, wanted.weights, _TOP),
        weighted_recall_at_k(gains, wanted.weights, _DEPTH),
    )
