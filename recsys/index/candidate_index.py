"""Maximum-inner-product search over candidate embeddings: FAISS behind one contract."""

import threading
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.index.built import built_index
from recsys.index.exclusions import Embeddings, Exclusion, Indices, allowed_bits
from recsys.ranking import order, tie_hash
from recsys.schema import PAD_IDX

_reading = threading.Lock()
"""Held while an index is read: FAISS has one limit for all that do."""

_FEW_RECENT = 2048
"""Of so many recent items all are fetched, which leaves no ties to be cut."""


class CandidateIndex:
    """Searches item embeddings by inner product.

    Args:
        index: FAISS's own, of one of the kinds in ``recsys.index.built``.
        recent: float32 [R, D], embeddings of items that came after those of ``index``; each search
            goes through all of them, and merges what it finds.

    Raises:
        ValueError: when the index is of another kind, or of another similarity.
    """

    def __init__(self, index: Any, recent: Embeddings | None = None) -> None:
        built = built_index(index)
        if built is None:
            raise ValueError(f"{type(index).__name__} with metric {index.metric_type}")
        self._built = built
        self._index = index
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
        other = copy(self)
        other._recent, other._hashed = recent, None
        return other

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return int(self._index.d)

    @property
    def exact(self) -> bool:
        """Whether search returns the true top items, or nearly so."""
        return self._built.exact

    @property
    def exact_scores(self) -> bool:
        """Whether scores are inner products, and not approximations."""
        return self._built.exact_scores

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
        return Exclusion(items, allowed_bits(items, self._num_built))

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
        fetch, effort = k + 1, 1
        while len(rows) and num_items:
            fetch = min(fetch, num_items)
            # At first all of them, of which nothing has to be copied.
            own = rows if len(rows) < num_queries else slice(None)
            excluded = [exclude[row] for row in rows.tolist()]
            found_scores, found, complete = self._built.find(queries[own], fetch, excluded, effort)
            last = found_scores[:, -1].copy()
            if (found_scores[:, 1:] == found_scores[:, :-1]).any():
                best = order(found_scores, self._hashes(seed)[found])
                found_scores = np.take_along_axis(found_scores, best, axis=1)
                found = np.take_along_axis(found, best, axis=1)
            width = min(k, fetch)
            scores[own, :width] = found_scores[:, :width]
            item_idx[own, :width] = found[:, :width]
            if complete:
                break
            short = (item_idx[own] != PAD_IDX).sum(1) < wanted[own]
            cut_tie = (scores[own, -1] == last) & (last > -np.inf) & self.exact
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
        try:
            return cls(index)
        except ValueError as error:
            raise InputError(f"an inner-product index in {path}", str(error), remedy) from error
