"""Maximum-inner-product search over candidate embeddings: FAISS behind one contract.

FAISS counts vectors from 0 and the rest of the package counts items from 1 (0 is padding), so the
vector at FAISS position ``p`` is the item with index ``p + 1``; padding is never stored.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.ranking import order, tie_hash
from recsys.schema import PAD_IDX

Embeddings = NDArray[np.float32]
Indices = NDArray[np.int64]

# FAISS scores batches of queries by BLAS, whose sums depend on a row's place in the batch. Its
# other path scores each (query, item) pair alone: a list then never depends on who else is in the
# batch, and equal embeddings have equal scores. For the widths in use it is no slower.
faiss.cvar.distance_compute_blas_threshold = 2**31 - 1

_reading = threading.Lock()
"""Held while an index is read: FAISS has one limit for all that do."""

_MAX_MARKED = 4_000_000
"""Up to so many (row, item) places, marking what is excluded is faster than sorting it."""
_FEW_RECENT = 2048
"""Of so many recent items all are fetched, which leaves no ties to be cut."""


class Exclusion(NamedTuple):
    """Items that a search must not return; from ``CandidateIndex.exclusion``.

    items: int64 [E], without padding. allowed: uint8 [ceil(N / 8)], bits of the items that a flat
    index may return; None where there is nothing to pass over, or where the index is another one.
    """

    items: Indices
    allowed: NDArray[np.uint8] | None = None


class _Selector(threading.local):
    """Parameters of one thread's searches: to make them takes as long as half a search.

    Args:
        num_items: of the index.
    """

    def __init__(self, num_items: int) -> None:
        self.bits = np.zeros(-(-num_items // 8), np.uint8)
        # FAISS reads the bits where they lie.
        self._selector = faiss.IDSelectorBitmap(num_items, faiss.swig_ptr(self.bits))
        self._parameters = _parameters("", sel=self._selector)

    def passing(self, allowed: NDArray[np.uint8]) -> Any:
        """Until it is called again in this thread."""
        self.bits[:] = allowed
        return self._parameters


class CandidateIndex:
    """Searches item embeddings by inner product; wraps a flat, HNSW or IVF-PQ FAISS index.

    Args:
        index: FAISS's own.
        recent: float32 [R, D], embeddings of items that came after those of ``index``; each search
            goes through all of them, and merges what it finds.
    """

    def __init__(self, index: Any, recent: Embeddings | None = None) -> None:
        self._index = index
        self._selector = _Selector(int(index.ntotal))
        self._recent = np.zeros((0, index.d), np.float32) if recent is None else recent
        self._hashed: tuple[int, Indices] | None = None

    def __len__(self) -> int:
        """Number of items N, padding not counted."""
        return self._num_built + len(self._recent)

    @property
    def _num_built(self) -> int:
        """Items of FAISS's index."""
        return int(self._index.ntotal)

    @property
    def num_recent(self) -> int:
        """Items that came after the index had been built, R: those with the highest numbers."""
        return len(self._recent)

    def with_recent(self, recent: Embeddings) -> "CandidateIndex":
        """The same with other recent items, float32 [R, D]; this one stays as it is.

        FAISS's index itself is not added to, since others may be searching it.

        Raises:
            ValueError: when the width does not fit or an embedding is not finite.
        """
        if recent.ndim != 2 or recent.shape[1] != self.dim or not np.isfinite(recent).all():
            raise ValueError(f"expected finite embeddings [R, {self.dim}]; found {recent.shape}")
        return CandidateIndex(self._index, recent)

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return int(self._index.d)

    @property
    def exact(self) -> bool:
        """Whether search returns the true top items (flat), or nearly so (HNSW, IVF-PQ)."""
        return isinstance(self._index, faiss.IndexFlat)

    def exclusion(self, item_idx: Indices, passing: NDArray[np.bool_] | None = None) -> Exclusion:
        """For searches without these items, int64 [E]; 0 is passed over.

        Args:
            passing: bool [N + 1], the items that may be returned at all; None for all.
        """
        items = item_idx[item_idx != PAD_IDX]
        if passing is not None:
            excluded = ~passing
            excluded[items] = True
            excluded[PAD_IDX] = False
            items = np.flatnonzero(excluded)
        if not self.exact or not len(items):
            return Exclusion(items)
        num_built = self._num_built
        allowed = np.ones(num_built + 1, bool)
        allowed[items[items <= num_built]] = False
        return Exclusion(items, np.packbits(allowed[1:], bitorder="little"))

    def search(
        self,
        queries: Embeddings,
        k: int,
        exclude: Sequence[Exclusion] | None = None,
        seed: int = 0,
    ) -> tuple[Embeddings, Indices]:
        """The ``k`` items of highest inner product with each query, best first.

        A flat index passes over what is excluded; of others more than ``k`` are fetched, and then
        what is excluded is dropped. A row that comes out short, or whose ``k``-th score ties with
        items not fetched, is searched again twice as wide; so a list holds fewer than ``k`` items
        only where the catalogue does.

        Args:
            queries: float32 [B, D], finite.
            k: at least 1; may exceed the number of items.
            exclude: of each query, what not to return.
            seed: orders equal scores (see ``recsys.ranking``).

        Returns:
            scores float32 [B, k] and item_idx int64 [B, k]; empty places hold -inf and 0.

        Raises:
            ValueError: when shapes do not fit, ``k`` < 1 or a query is not finite.
        """
        queries = self._checked(queries, k)
        num_queries = len(queries)
        if exclude is None:
            exclude = [self.exclusion(np.zeros(0, np.int64))] * num_queries
        if len(exclude) != num_queries:
            raise ValueError(f"expected {num_queries} exclusions; found {len(exclude)}")
        scores, item_idx = self._search_built(queries, k, exclude, seed)
        if len(self._recent):
            found = self._search_recent(queries, k, exclude)
            both = np.concatenate([scores, found[0]], 1), np.concatenate([item_idx, found[1]], 1)
            best = order(both[0], self._hashes(seed)[both[1]])[:, :k]
            scores, item_idx = (np.take_along_axis(one, best, axis=1) for one in both)
        return scores, item_idx

    def _search_recent(
        self, queries: Embeddings, k: int, exclude: Sequence[Exclusion]
    ) -> tuple[Embeddings, Indices]:
        """Scores and items [B, R or fewer] of recent items alone, as ``search`` returns them."""
        num_built = self._num_built
        recent = [one.items[one.items > num_built] for one in exclude]
        fetch = max(k + max(len(items) for items in recent), _FEW_RECENT)
        fetch = min(fetch, len(self._recent))
        scores, positions = faiss.knn(
            queries, self._recent, fetch, metric=faiss.METRIC_INNER_PRODUCT
        )
        found = positions + 1 + num_built
        for row, items in enumerate(recent):
            dropped = np.isin(found[row], items)
            scores[row, dropped] = -np.inf
            found[row, dropped] = PAD_IDX
        return scores, found

    def _search_built(
        self, queries: Embeddings, k: int, exclude: Sequence[Exclusion], seed: int
    ) -> tuple[Embeddings, Indices]:
        """As ``search``, without the recent items."""
        num_queries, num_items = len(queries), self._num_built
        num_excluded = np.array([(one.items <= num_items).sum() for one in exclude], np.int64)
        # Fewest items that must come back; repeated entries of ``exclude`` only lower it.
        wanted = np.clip(num_items - num_excluded, 0, k)

        scores = np.full((num_queries, k), -np.inf, np.float32)
        item_idx = np.full((num_queries, k), PAD_IDX, np.int64)
        rows = np.arange(num_queries)
        # One more than wanted tells whether the last one ties with the next.
        fetch, effort = k + 1 + (0 if self.exact else int(num_excluded.max(initial=0))), 1
        while len(rows) and num_items:
            fetch = min(fetch, num_items)
            excluded = [exclude[row] for row in rows.tolist()]
            if self.exact:
                found_scores, found = self._fetch_exact(queries[rows], fetch, excluded)
                complete = fetch == num_items
            else:
                found_scores, found, complete = self._fetch(queries[rows], fetch, effort)
                _drop_excluded(found_scores, found, excluded, len(self))
            last = found_scores[:, -1].copy()
            if (found_scores[:, 1:] == found_scores[:, :-1]).any():
                best = order(found_scores, self._hashes(seed)[found])
                found_scores = np.take_along_axis(found_scores, best, axis=1)
                found = np.take_along_axis(found, best, axis=1)
            width = min(k, fetch)
            scores[rows, :width] = found_scores[:, :width]
            item_idx[rows, :width] = found[:, :width]
            if complete:
                break
            short = (item_idx[rows] != PAD_IDX).sum(1) < wanted[rows]
            cut_tie = (scores[rows, -1] == last) & (last > -np.inf) & self.exact
            rows = rows[short | cut_tie]
            fetch, effort = 2 * fetch, 2 * effort
        return scores, item_idx

    def _hashes(self, seed: int) -> Indices:
        """The keys that order equal scores, by item: int64 [N + 1]."""
        if self._hashed is None or self._hashed[0] != seed:
            self._hashed = seed, tie_hash(torch.arange(len(self) + 1), seed).numpy()
        return self._hashed[1]

    def _checked(self, queries: Embeddings, k: int) -> Embeddings:
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"queries must be [B, {self.dim}]; found {queries.shape}")
        if k < 1:
            raise ValueError(f"k must be at least 1; found {k}")
        if not np.isfinite(queries).all():
            raise ValueError("queries must be finite; found NaN or infinity")
        return np.ascontiguousarray(queries, np.float32)

    def _fetch_exact(
        self, queries: Embeddings, fetch: int, excluded: Sequence[Exclusion]
    ) -> tuple[Embeddings, Indices]:
        """Scores and items [B, fetch] of a flat index, best first, without what is excluded.

        Query by query, since FAISS takes one selector per call; fetching as many more items for
        each query as the longest history of a batch has costs more.
        """
        shape = (len(queries), fetch)
        scores, positions = np.empty(shape, np.float32), np.empty(shape, np.int64)
        if any(one.allowed is not None for one in excluded):
            for row, one in enumerate(excluded):
                own = slice(row, row + 1)
                passing = None if one.allowed is None else self._selector.passing(one.allowed)
                self._index.search(
                    queries[own], fetch, params=passing, D=scores[own], I=positions[own]
                )
        else:
            self._index.search(queries, fetch, D=scores, I=positions)
        scores[positions < 0] = -np.inf
        return scores, positions + 1

    def _fetch(
        self, queries: Embeddings, fetch: int, effort: int
    ) -> tuple[Embeddings, Indices, bool]:
        """``fetch`` items per query, and whether no wider search can find more.

        Empty places (FAISS's -1) come back as index 0.
        """
        index, parameters = self._index, None
        complete = fetch == self._num_built
        if isinstance(index, faiss.IndexHNSW):
            if 4 * fetch >= self._num_built:
                # A walk over most of the graph costs more than a scan, and misses nodes that no
                # edge leads to.
                index = faiss.downcast_index(index.storage)
            else:
                width = effort * max(index.hnsw.efSearch, fetch)
                parameters = _parameters("HNSW", efSearch=width)
        elif isinstance(index, faiss.IndexIVF):
            num_probes = min(effort * index.nprobe, index.nlist)
            parameters = _parameters("IVF", nprobe=num_probes)
            complete = complete and num_probes == index.nlist
        scores, positions = index.search(queries, fetch, params=parameters)
        return scores, positions + 1, complete

    def save(self, path: Path) -> None:
        """Write one file that ``load`` reads; recent items are not part of it."""
        faiss.write_index(self._index, str(path))

    @classmethod
    def load(cls, path: Path) -> "CandidateIndex":
        """Read an index from a file.

        Raises:
            InputError: when the file is missing, truncated, or no inner-product index of ours.
        """
        expected, remedy = f"a FAISS index in {path}", "write the bundle again"
        if not path.is_file():
            raise InputError(expected, "no such file", remedy)
        try:
            with _reading:
                # FAISS would reserve whatever sizes the file claims.
                faiss.set_deserialization_vector_byte_limit(max(path.stat().st_size, 1))
                index = faiss.read_index(str(path))
        except (RuntimeError, MemoryError) as error:
            # FAISS puts the reason last, after its own source location.
            reason = str(error).rsplit("failed: ", 1)[-1].splitlines()[0]
            raise InputError(expected, f"a file that it cannot read ({reason})", remedy) from error
        known = isinstance(index, (faiss.IndexFlat, faiss.IndexHNSW, faiss.IndexIVFPQ))
        if not known or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            found = f"{type(index).__name__} with metric {index.metric_type}"
            raise InputError(f"an inner-product index in {path}", found, remedy)
        return cls(index)


def _drop_excluded(
    scores: Embeddings, found: Indices, exclude: Sequence[Exclusion], num_items: int
) -> None:
    """Move what is excluded, and what is empty, to the end of each row, as empty: in place."""
    excluded = np.full((len(exclude), max(len(one.items) for one in exclude)), PAD_IDX)
    for row, one in enumerate(exclude):
        excluded[row, : len(one.items)] = one.items
    dropped = (found == PAD_IDX) | _is_excluded(found, excluded, num_items)
    scores[dropped] = -np.inf
    found[dropped] = PAD_IDX
    kept_first = np.argsort(dropped, axis=1, kind="stable")
    scores[:] = np.take_along_axis(scores, kept_first, axis=1)
    found[:] = np.take_along_axis(found, kept_first, axis=1)


def _is_excluded(found: Indices, excluded: Indices, num_items: int) -> NDArray[np.bool_]:
    """Whether found [B, F] is in the same row of excluded [B, E]: bool [B, F]."""
    num_rows = len(found)
    if excluded.size == 0:
        return np.zeros(found.shape, bool)
    if num_rows * num_items <= _MAX_MARKED:
        marked = np.zeros((num_rows, num_items + 1), bool)
        rows = np.arange(num_rows)[:, None]
        marked[rows, excluded] = True
        return marked[rows, found]
    # (row, item) pairs become one number each, so that one sorted look-up serves the whole batch.
    row_starts = (num_items + 1) * np.arange(num_rows)[:, None]
    return np.isin(found + row_starts, excluded + row_starts)


def _parameters(kind: str, **settings: Any) -> Any:
    """Parameters of one search, so that no search changes the index; FAISS's stubs lack them."""
    return getattr(faiss, f"SearchParameters{kind}")(**settings)
