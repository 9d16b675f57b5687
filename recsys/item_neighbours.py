"""A baseline that recommends the neighbours of a user's items: item-kNN, with or without times."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recsys.data.histories import Histories
from recsys.schema import PAD_IDX
from recsys.signals.item_graph import co_occurrence_counts

_CELLS_PER_CHUNK = 4_000_000


@dataclass(frozen=True)
class ItemNeighbours:
    """A user's score of an item is the sum of the similarities of the user's items to it.

    matrix: sparse float32 [U + 1, N + 1], what a user's items weigh. similar: sparse float32
    [N + 1, N + 1], from a user's item (row) to its neighbours.
    """

    matrix: sp.csr_matrix
    similar: sp.csr_matrix

    def scores(self, user_idx: NDArray[np.int64]) -> NDArray[np.float32]:
        scores = (self.matrix[user_idx] @ self.similar).toarray().astype(np.float32, copy=False)
        scores[:, PAD_IDX] = -np.inf
        return np.asarray(scores)


def fit_item_neighbours(
    train: Histories,
    num_items: int,
    neighbours: int = 200,
    exponent: float = 0.5,
    shrinkage: float = 5.0,
    half_life: float | None = None,
    time_scale: float | None = None,
    window: int = 100,
) -> ItemNeighbours:
    """Count how often two items meet in a history, damped by how often each occurs.

    Similarity is n_ij / ((n_i n_j) ** exponent + shrinkage). Time is that of the pairs that meet;
    without a time scale memory is bounded by 4 million of them and the neighbours that are kept.

    Args:
        neighbours: kept per item of a history, the most similar.
        exponent: 0.5 is a cosine; less favours popular items.
        shrinkage: damps pairs of rare items.
        half_life: an event of a user so many events before the last counts half; None: all alike.
        time_scale: seconds. A pair so far apart counts half, by 1 / (1 + |dt| / time_scale); None:
            all pairs of a history count alike.
        window: with a time scale, pairs further apart than so many events are not counted.

    Raises:
        ValueError: when there would be no neighbours, or a half-life or scale is not positive.

    Source: Sarwar et al. 2001; times as in Ding & Li 2005, "Time weight collaborative filtering".
    """
    if neighbours < 1 or not all(value is None or value > 0 for value in (half_life, time_scale)):
        raise ValueError("expected at least 1 neighbour, and positive half_life and time_scale")
    damped = np.maximum(train.item_counts(num_items), 1).astype(np.float32) ** exponent
    rows = _pair_counts(train, num_items, time_scale, window)
    size = max(1, _CELLS_PER_CHUNK // (num_items + 1))
    parts = []
    for start in range(0, num_items + 1, size):
        pairs = rows(slice(start, start + size)).tocoo()
        own = pairs.row + start
        similar = pairs.data / (damped[own] * damped[pairs.col] + shrinkage)
        apart = own != pairs.col
        entries = (similar[apart], (pairs.row[apart], pairs.col[apart]))
        parts.append(_strongest(sp.csr_matrix(entries, pairs.shape), neighbours))
    return ItemNeighbours(_weights(train, num_items, half_life), sp.vstack(parts, format="csr"))


def _pair_counts(
    train: Histories, num_items: int, time_scale: float | None, window: int
) -> Callable[[slice], sp.csr_matrix]:
    """Gives rows of the matrix of how often two items meet, sparse float32 [rows, N + 1]."""
    if time_scale is None:
        matrix = train.matrix(num_items)
        by_item = matrix.T.tocsr()
        return lambda rows: by_item[rows] @ matrix
    pairs, _ = co_occurrence_counts(train, num_items, time_scale=time_scale, window=window)
    pairs = pairs.tocsr()
    return lambda rows: pairs[rows]


def _strongest(similar: sp.csr_matrix, neighbours: int) -> sp.csr_matrix:
    """The largest entries of each row; of equal ones, those of the first columns."""
    similar.sort_indices()
    lengths = np.diff(similar.indptr)
    row = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((-similar.data, row))
    kept = np.sort(order[np.arange(len(row)) - similar.indptr[row] < neighbours])
    entries = (similar.data[kept], (row[kept], similar.indices[kept]))
    return sp.csr_matrix(entries, similar.shape)


def _weights(train: Histories, num_items: int, half_life: float | None) -> sp.csr_matrix:
    """What each event of a user weighs, float32 [U + 1, N + 1]; of a repeated item, the latest."""
    if half_life is None:
        return train.matrix(num_items)
    user_idx = train.user_idx
    age = train.offsets[user_idx + 1] - 1 - np.arange(len(train))
    weights = np.exp2(-age / half_life).astype(np.float32)
    keys = user_idx * (num_items + 1) + train.item_idx
    # The first of the reversed keys is an item's latest event.
    _, latest = np.unique(keys[::-1], return_index=True)
    latest = len(keys) - 1 - latest
    shape = (train.num_users + 1, num_items + 1)
    entries = (weights[latest], (user_idx[latest], train.item_idx[latest]))
    return sp.csr_matrix(entries, shape=shape)
