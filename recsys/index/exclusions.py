"""What a search must not return."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.schema import PAD_IDX

Embeddings = NDArray[np.float32]
Indices = NDArray[np.int64]

_MAX_MARKED = 4_000_000
"""Up to so many (row, item) places, marking what is excluded is faster than sorting it."""


class Exclusion(NamedTuple):
    """Items that a search must not return; from ``CandidateIndex.exclusion``.

    items: int64 [E], without padding. allowed: uint8 [ceil(N / 8)], bits of the items that a flat
    index may return; None where there is nothing to pass over, or where the index is another one.
    """

    items: Indices
    allowed: NDArray[np.uint8] | None = None


def allowed_bits(items: Indices, num_items: int) -> NDArray[np.uint8]:
    """Bits of the items 1..num_items that are not among ``items``, int64 [E]: ``Exclusion``."""
    allowed = np.ones(num_items + 1, bool)
    allowed[items[items <= num_items]] = False
    return np.packbits(allowed[1:], bitorder="little")


def without_excluded(found: Indices, exclude: Sequence[Exclusion], *others: Embeddings) -> None:
    """Move what is excluded, and what is empty, to the end of each row, as empty: in place.

    Args:
        found: int64 [B, F], 0 where empty. exclude: of each row. others: float32 [B, F], scores
            that move with the items; -inf where empty.
    """
    dropped = _dropped(found, exclude)
    found[dropped] = PAD_IDX
    kept_first = np.argsort(dropped, axis=1, kind="stable")
    found[:] = np.take_along_axis(found, kept_first, axis=1)
    for scores in others:
        scores[dropped] = -np.inf
        scores[:] = np.take_along_axis(scores, kept_first, axis=1)


def first_allowed(found: Indices, exclude: Sequence[Exclusion], number: int) -> Indices:
    """Of each row the first ``number`` that are not excluded, int64 [B, number]; 0 for those that
    it lacks.

    Args:
        found: int64 [B, F], 0 where empty. exclude: of each row.
    """
    kept = ~_dropped(found, exclude)
    place = np.cumsum(kept, axis=1)
    kept &= place <= number
    first = np.full((len(found), number), PAD_IDX)
    first[np.arange(number) < place[:, -1:]] = found[kept]
    return first


def _dropped(found: Indices, exclude: Sequence[Exclusion]) -> NDArray[np.bool_]:
    """What is excluded, and what is empty, of found [B, F]: bool [B, F]."""
    excluded = np.full((len(exclude), max(len(one.items) for one in exclude)), PAD_IDX)
    for row, one in enumerate(exclude):
        excluded[row, : len(one.items)] = one.items
    dropped: NDArray[np.bool_] = (found == PAD_IDX) | _is_excluded(found, excluded)
    return dropped


def _is_excluded(found: Indices, excluded: Indices) -> NDArray[np.bool_]:
    """Whether found [B, F] is in the same row of excluded [B, E]: bool [B, F]."""
    num_rows = len(found)
    if excluded.size == 0:
        return np.zeros(found.shape, bool)
    num_items = int(max(found.max(initial=0), excluded.max()))
    if num_rows * num_items <= _MAX_MARKED:
        marked = np.zeros((num_rows, num_items + 1), bool)
        rows = np.arange(num_rows)[:, None]
        marked[rows, excluded] = True
        return marked[rows, found]
    # (row, item) pairs become one number each, so that one sorted look-up serves the whole batch.
    row_starts = (num_items + 1) * np.arange(num_rows)[:, None]
    return np.isin(found + row_starts, excluded + row_starts)
