"""The one rule that turns scores into an order: descending score, ties by a seeded hash."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ODD_MULTIPLIERS = (0x9E3779B1, 0x85EBCA77)
_MASK_32 = 0xFFFFFFFF


def tie_hash(item_idx: Tensor, seed: int = 0) -> Tensor:
    """A pseudo-random key in [0, 2**32) for each index: int64, the shape of ``item_idx``.

    It makes the order of equal scores independent of ids and row order, which on MovieLens would
    otherwise leak (its test file is sorted by item). Multiply-xorshift as in MurmurHash3.
    """
    key = (item_idx.to(torch.int64) + seed * _ODD_MULTIPLIERS[0]) & _MASK_32
    for multiplier in _ODD_MULTIPLIERS:
        key = ((key ^ (key >> 16)) * multiplier) & _MASK_32
    return key ^ (key >> 15)


def top_k(scores: Tensor, item_idx: Tensor, k: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The ``k`` best columns of each row, best first.

    Args:
        scores: float [B, N]; -inf marks an entry that must not be returned.
        item_idx: int64 [B, N] (or [N], the same for every row).
        k: number of columns returned; capped at N.

    Returns:
        scores float [B, k] and item_idx int64 [B, k]; entries with score -inf have index 0.
    """
    item_idx = item_idx.expand_as(scores)
    if 0 < 4 * k < scores.shape[1]:
        kept = _contenders(scores, k)
        scores, item_idx = scores.gather(1, kept), item_idx.gather(1, kept)
    by_hash = tie_hash(item_idx, seed).argsort(dim=1)
    shuffled = scores.gather(1, by_hash)
    by_score = shuffled.argsort(dim=1, descending=True, stable=True)[:, :k]
    best_scores = shuffled.gather(1, by_score)
    best_items = item_idx.gather(1, by_hash.gather(1, by_score))
    return best_scores, best_items.masked_fill(best_scores == -torch.inf, 0)


def order(scores: NDArray[Any], hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions [..., K] of scores [..., K], best first, by the same rule as ``top_k``.

    Several times faster than that for short lists, where calls cost more than sorting.

    Args:
        scores: none of them NaN. hashes: ``tie_hash`` of the items.
    """
    falling = -scores
    ranked = np.sort(falling, axis=-1)
    if (ranked[..., 1:] == ranked[..., :-1]).any():
        return np.lexsort((hashes, falling))
    found: NDArray[np.int64] = falling.argsort(axis=-1)
    return found


def _contenders(scores: Tensor, k: int) -> Tensor:
    """Columns int64 [B, >= k] that hold all entries not below the row's ``k``-th best.

    It saves sorting whole rows by hash and by score, which is slow where the catalogue is large.
    """
    best, columns = scores.topk(k, dim=1)
    # Ties with the k-th best may go on beyond it; among entries of -inf there is nothing to order.
    tied = ~(scores < best[:, -1:]) & (scores != -torch.inf)
    width = int(tied.sum(dim=1).max()) if tied.numel() else 0
    return columns if width <= k else scores.topk(width, dim=1).indices
