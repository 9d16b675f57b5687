"""Whether stage 2 pays: what it gains on the lists of users whom it has not learned from."""

import logging
from typing import NamedTuple

import numpy as np
import torch

from recsys.evaluation import paired_bootstrap
from recsys.metrics import graded_ndcg_at_k
from recsys.models.cross_encoder import CrossEncoder
from recsys.training.reranking import ListDataModule, with_tokens

log = logging.getLogger(__name__)

_TOP, _DEPTH, _SEED = 10, 100, 0


class Gain(NamedTuple):
    """Of one metric, stage 2's order minus stage 1's: mean over users, and its 95% interval."""

    mean: float
    low: float
    high: float


class ListGain(NamedTuple):
    """top: of NDCG@10. depth: of NDCG@100."""

    top: Gain
    depth: Gain

    @property
    def pays(self) -> bool:
        """Whether one of both rises, with its whole interval, and none falls with its own."""
        return max(self.top.low, self.depth.low) > 0 and min(self.top.high, self.depth.high) >= 0


@torch.inference_mode()
def gain_on_kept_lists(model: CrossEncoder, lists: ListDataModule) -> ListGain:
    """On the out-of-fold lists of users kept aside; a user's lists, one per fold, count as one, and
    each held-out event by its weight.

    Args:
        model: in evaluation mode, on the CPU.
    """
    users = np.concatenate(
        [fold.user_idx[rows] for fold, rows in zip(lists.folds, lists.kept_rows, strict=True)]
    )
    differences = []
    for batch in lists.val_dataloader():
        scores = model(with_tokens(model, batch.inputs)).masked_fill(~batch.mask, -torch.inf)
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :_DEPTH]
        after, before = batch.gains.gather(1, order), batch.gains[:, :_DEPTH]
        gained = [
            graded_ndcg_at_k(after, batch.wanted, k) - graded_ndcg_at_k(before, batch.wanted, k)
            for k in (_TOP, _DEPTH)
        ]
        differences.append(torch.stack(gained, dim=1))
    by_list = torch.cat(differences).double().numpy()
    _, rows, number = np.unique(users, return_inverse=True, return_counts=True)
    by_user = np.stack([np.bincount(rows, column) / number for column in by_list.T], axis=1)
    low, high = paired_bootstrap(by_user, _SEED)
    top, depth = (
        Gain(*(round(float(value), 8) for value in one))
        for one in zip(by_user.mean(axis=0), low, high, strict=True)
    )
    log.info(
        "stage 2 minus stage 1 on lists of %d users kept aside: NDCG@10 %+.4f (%+.4f to %+.4f), "
        "NDCG@100 %+.4f (%+.4f to %+.4f)",
        *(len(by_user), *top, *depth),
    )
    return ListGain(top, depth)
