"""Which items go together: co-occurrence counts from training events."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.histories import Histories

_PAIRS_AT_A_TIME = 4_000_000
_DENSE_CELLS = 10_000_000
"""Up to so many pairs of items are summed in a dense matrix, which is several times faster."""
_KEPT_PAIRS = 20_000_000
"""The largest matrices that are kept for who asks again: 160 MB."""


@dataclass(frozen=True)
class ItemGraph:
    """A sparse symmetric item-item weight matrix W over indices 0..N, row 0 and column 0 empty.

    keys: int64 [E], sorted, ``row * (N + 1) + column``. weights: float32 [E].
    """

    num_items: int
    keys: Tensor
    weights: Tensor


def co_occurrence_graphs(
    histories: Histories,
    num_items: int,
    *,
    time_scale: float = 100.0,
    window: int = 1000,
    shrinkage: float = 5.0,
    max_neighbors: int = 512,
) -> tuple[ItemGraph, ItemGraph]:
    """Session and plain co-occurrence graphs of the users' histories.

    The counts of ``co_occurrence_counts``, divided by sqrt(n_i n_j) + shrinkage, where n counts
    events: a damped cosine (Sarwar et al. 2001).

    Args:
        max_neighbors: the strongest neighbours kept per item.
    """
    session, plain = co_occurrence_counts(
        histories, num_items, time_scale=time_scale, window=window
    )
    counts = histories.item_counts(num_items).astype(np.float32)
    return (
        _normalized(session, counts, shrinkage, max_neighbors),
        _normalized(plain, counts, shrinkage, max_neighbors),
    )


class _Latest(NamedTuple):
    """Counts that both stages need of the same events; kept as long as those are."""

    histories: "weakref.ref[Histories]"
    settings: tuple[int, float, int, bool]
    counts: tuple[sp.csr_matrix, sp.csr_matrix]


_latest: list[_Latest] = []


def co_occurrence_counts(
    histories: Histories,
    num_items: int,
    *,
    time_scale: float = 100.0,
    window: int = 1000,
    taper: bool = False,
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """How often two items meet in one history: sparse symmetric float32 [N + 1, N + 1], twice.

    Not to be changed: who asks again for the same events gets the same matrices.

    Two events of one user count 1 / (1 + |dt| / time_scale) in the first matrix, the session
    matrix, so that items seen in one sitting weigh most, and 1 in the second. An event is not
    paired with itself: without repeated items both diagonals are empty.

    Where all events have one time, as where there are none, and no history is longer than the
    window, both are how many users have the two.

    Args:
        time_scale: seconds. window: pairs further apart than this many events are not counted.
        taper: whether pairs of a user with more events than that count less in the session matrix
            the more events lie between them, down to nothing at the window's end. With the count
            of each item on its diagonal the matrix is then positive semidefinite, as it is without
            a window: 1 / (1 + |t|) is convex and falls to 0 (Polya 1949), so is the taper, and a
            product of two such kernels is one (Schur). A window with a sharp edge is none.
    """
    taper = taper and bool((histories.lengths > window + 1).any())
    settings = (num_items, time_scale, window, taper)
    for latest in _latest:
        if latest.histories() is histories and latest.settings == settings:
            return latest.counts
    # A product of matrices has no window: of a very long history it would hold all pairs.
    is_plain = not histories.has_order and int(histories.lengths.max(initial=0)) <= window + 1
    counts = _together(histories, num_items) if is_plain else _counted(histories, *settings)
    if sum(matrix.nnz for matrix in counts) <= _KEPT_PAIRS:
        kept = weakref.ref(histories, lambda _: _latest.clear())
        _latest[:] = [_Latest(kept, settings, counts)]
    return counts


def _is_small(num_items: int) -> bool:
    return (num_items + 1) ** 2 <= _DENSE_CELLS


def _together(histories: Histories, num_items: int) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """``co_occurrence_counts`` of events without order: a product of matrices counts the pairs."""
    matrix = histories.matrix_of(np.ones(len(histories), np.float32), num_items)
    itself = sp.diags(histories.item_counts(num_items).astype(np.float32))
    both = (matrix.T @ matrix - itself).tocsr()
    both.eliminate_zeros()
    return both, both


def _counted(
    histories: Histories, num_items: int, time_scale: float, window: int, taper: bool
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    shape, item_idx = (num_items + 1, num_items + 1), histories.item_idx
    sums = _DenseSums(shape) if _is_small(num_items) else _SparseSums(shape)
    for earlier, later, kernel in _pairs(histories, time_scale, window, taper):
        sums.add(item_idx[earlier], item_idx[later], kernel)
    session, plain = sums.matrices()
    return session + session.T, plain + plain.T


def session_sums(
    histories: Histories,
    num_items: int,
    values: NDArray[np.float32],
    *,
    time_scale: float,
    window: int = 1000,
    taper: bool = False,
) -> sp.csr_matrix:
    """The session matrix of ``co_occurrence_counts`` where each pair counts what its second event
    is worth: sparse float32 [N + 1, N + 1], from the rows' items to those of the columns.

    Args:
        values: [n], of each event.
    """
    taper = taper and bool((histories.lengths > window + 1).any())
    shape, item_idx = (num_items + 1, num_items + 1), histories.item_idx
    sums = _DenseSums(shape) if _is_small(num_items) else _SparseSums(shape)
    for earlier, later, kernel in _pairs(histories, time_scale, window, taper):
        sums.add(item_idx[earlier], item_idx[later], kernel * values[later])
        sums.add(item_idx[later], item_idx[earlier], kernel * values[earlier])
    return sums.matrices()[0]


def _pairs(
    histories: Histories, time_scale: float, window: int, taper: bool
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Pairs of a user's events, many at a time: rows of the earlier and of the later one, and what
    they count in the session matrix.
    """
    user_idx, timestamps = histories.user_idx, histories.timestamps
    place = np.arange(len(histories)) - histories.offsets[user_idx]
    # Latest places first: those that have an event so many before them come first.
    order = np.argsort(-place, kind="stable")
    beyond = (histories.lengths > window + 1)[user_idx]  # whether the window cuts
    num_later = np.searchsorted(-place[order], -np.arange(1, place.max(initial=0) + 1), "right")
    batch: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
    pending = 0
    for shift, number in enumerate(num_later[:window], start=1):
        later = order[:number]
        earlier = later - shift
        gap = timestamps[later] - timestamps[earlier]
        kernel = (1.0 / (1.0 + gap / time_scale)).astype(np.float32)
        if taper:
            kernel[beyond[later]] *= 1.0 - shift / (window + 1)
        batch.append((earlier, later, kernel))
        pending += len(kernel)
        if pending > _PAIRS_AT_A_TIME:
            yield _joined(batch)
            batch, pending = [], 0
    if batch:
        yield _joined(batch)


def _joined(
    batch: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    earlier, later, kernel = zip(*batch, strict=True)
    return np.concatenate(earlier), np.concatenate(later), np.concatenate(kernel)


class _DenseSums:
    """Sums per pair of items: of kernels, and of ones. For catalogues of a few thousand items."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.sums = [np.zeros(shape[0] * shape[1]) for _ in range(2)]

    def add(
        self, left: NDArray[np.int64], right: NDArray[np.int64], kernel: NDArray[np.float32]
    ) -> None:
        keys = left * self.shape[1] + right
        for values, weights in zip(self.sums, (kernel, None), strict=True):
            values += np.bincount(keys, weights, minlength=len(values))

    def matrices(self) -> list[sp.csr_matrix]:
        dense = [values.reshape(self.shape).astype(np.float32) for values in self.sums]
        return [sp.csr_matrix(values) for values in dense]


class _SparseSums:
    """As ``_DenseSums``, in memory for the pairs that there are."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.sums = [sp.csr_matrix(shape, dtype=np.float32) for _ in range(2)]

    def add(
        self, left: NDArray[np.int64], right: NDArray[np.int64], kernel: NDArray[np.float32]
    ) -> None:
        self.sums = [
            total + sp.coo_matrix((values, (left, right)), total.shape).tocsr()
            for total, values in zip(self.sums, (kernel, np.ones_like(kernel)), strict=True)
        ]

    def matrices(self) -> list[sp.csr_matrix]:
        return self.sums


def _normalized(
    graph: sp.spmatrix, counts: np.ndarray, shrinkage: float, max_neighbors: int
) -> ItemGraph:
    """Damped cosine weights; each item keeps its strongest neighbours (the union is symmetric)."""
    csr = graph.tocsr().sorted_indices()
    row = np.repeat(np.arange(len(counts)), np.diff(csr.indptr))
    column = csr.indices.astype(np.int64)
    weight = csr.data / (np.sqrt(counts[row] * counts[column]) + shrinkage)
    weight[row == column] = -1.0

    by_strength = np.argsort(-weight, kind="stable")
    # Few bits sort faster.
    rows = row.astype(np.min_scalar_type(len(counts)))[by_strength]
    by_strength = by_strength[np.argsort(rows, kind="stable")]
    strong = np.zeros(len(row), dtype=bool)
    strong[by_strength] = np.arange(len(row)) - csr.indptr[row] < max_neighbors
    # Of each pair, the place of the same two items the other way round.
    places = sp.csr_matrix((np.arange(len(row)), csr.indices, csr.indptr), csr.shape)
    keep = (strong | strong[places.T.tocsr().data]) & (row != column)
    num_items = len(counts) - 1
    return ItemGraph(
        num_items,
        torch.from_numpy(row[keep] * (num_items + 1) + column[keep]),
        torch.from_numpy(weight[keep].astype(np.float32)),
    )
