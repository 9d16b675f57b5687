"""Which items go together: co-occurrence counts from training events."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from recsys.data.histories import Histories


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


def co_occurrence_counts(
    histories: Histories,
    num_items: int,
    *,
    time_scale: float = 100.0,
    window: int = 1000,
    taper: bool = False,
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """How often two items meet in one history: sparse symmetric float32 [N + 1, N + 1], twice.

    Two events of one user count 1 / (1 + |dt| / time_scale) in the first matrix, the session
    matrix, so that items seen in one sitting weigh most, and 1 in the second. An event is not
    paired with itself: without repeated items both diagonals are empty.

    Args:
        time_scale: seconds. window: pairs further apart than this many events are not counted.
        taper: whether pairs of a user with more events than that count less in the session matrix
            the more events lie between them, down to nothing at the window's end. With the count
            of each item on its diagonal the matrix is then positive semidefinite, as it is without
            a window: 1 / (1 + |t|) is convex and falls to 0 (Polya 1949), so is the taper, and a
            product of two such kernels is one (Schur). A window with a sharp edge is none.
    """
    session = sp.csr_matrix((num_items + 1, num_items + 1), dtype=np.float32)
    plain = session.copy()
    user_idx, item_idx, timestamps = histories.user_idx, histories.item_idx, histories.timestamps
    longest = int(histories.lengths.max(initial=0))
    beyond = histories.lengths > window + 1  # of each user: whether the window cuts
    batch: list[np.ndarray] = []

    def flush() -> tuple[sp.csr_matrix, sp.csr_matrix]:
        left = np.concatenate([b[0] for b in batch])
        right = np.concatenate([b[1] for b in batch])
        kernel = np.concatenate([b[2] for b in batch])
        shape = session.shape
        return (
            session + sp.coo_matrix((kernel, (left, right)), shape).tocsr(),
            plain + sp.coo_matrix((np.ones_like(kernel), (left, right)), shape).tocsr(),
        )

    pending = 0
    for shift in range(1, min(window, longest - 1) + 1):
        same_user = user_idx[shift:] == user_idx[:-shift]
        gap = (timestamps[shift:] - timestamps[:-shift])[same_user]
        kernel = (1.0 / (1.0 + gap / time_scale)).astype(np.float32)
        if taper:
            kernel[beyond[user_idx[shift:][same_user]]] *= 1.0 - shift / (window + 1)
        batch.append((item_idx[:-shift][same_user], item_idx[shift:][same_user], kernel))  # type: ignore[arg-type]
        pending += len(kernel)
        if pending > 4_000_000:
            session, plain = flush()
            batch, pending = [], 0
    if batch:
        session, plain = flush()
    return session + session.T, plain + plain.T


def _normalized(
    graph: sp.spmatrix, counts: np.ndarray, shrinkage: float, max_neighbors: int
) -> ItemGraph:
    """Damped cosine weights; each item keeps its strongest neighbours (the union is symmetric)."""
    coo = graph.tocoo()
    off_diagonal = coo.row != coo.col
    row, column = coo.row[off_diagonal].astype(np.int64), coo.col[off_diagonal].astype(np.int64)
    weight = coo.data[off_diagonal] / (np.sqrt(counts[row] * counts[column]) + shrinkage)

    by_strength = np.lexsort((column, -weight, row))
    first = np.searchsorted(row[by_strength], row[by_strength])
    strong = np.zeros(len(row), dtype=bool)
    strong[by_strength] = np.arange(len(row)) - first < max_neighbors
    num_items = len(counts) - 1
    keys = row * (num_items + 1) + column
    mirrored = column * (num_items + 1) + row
    keep = strong | np.isin(keys, mirrored[strong])
    order = np.argsort(keys[keep])
    return ItemGraph(
        num_items,
        torch.from_numpy(keys[keep][order]),
        torch.from_numpy(weight[keep][order].astype(np.float32)),
    )
