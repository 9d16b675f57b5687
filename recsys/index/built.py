"""How each kind of FAISS index is searched: flat, graph, inverted lists, and two passes.

FAISS counts vectors from 0 and the rest of the package counts items from 1 (0 is padding), so the
vector at FAISS position ``p`` is the item with index ``p + 1``; padding is never stored.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from recsys.core.huge_pages import use_huge_pages
from recsys.index.exclusions import (
    Embeddings,
    Exclusion,
    Indices,
    allowed_bits,
    first_allowed,
    without_excluded,
)

# FAISS scores batches of queries by BLAS, whose sums depend on a row's place in the batch. Its
# other path scores each (query, item) pair alone: a list then never depends on who else is in the
# batch, and equal embeddings have equal scores. For the widths in use it is no slower.
faiss.cvar.distance_compute_blas_threshold = 2**31 - 1

_LEAST_DEPTH = 512
"""Of a first pass: less of it saves less than it costs where queries do not share a call."""
_LEAST_WANTED = 200
"""Of a short list, too, as many times so many are scored again as of one of this length, for which
the share of what is found is measured: most of the best ten are further down by their codes."""
_FAST_SCAN = 15
"""Of FAISS's kernels for codes, the one that takes a batch four queries at a time: for 64 to 160
codes 14 to 26% less than the one that FAISS takes by itself, with the same results."""
_WIDE = 4
"""Of fewer than so many times the items that a search looks at, comparing all of them is faster."""


class Found(NamedTuple):
    """scores: float32 [B, F], best first, -inf where empty. item_idx: int64 [B, F], 0 where empty.
    complete: whether no wider search finds more.
    """

    scores: Embeddings
    item_idx: Indices
    complete: bool


class BuiltIndex(Protocol):
    """A FAISS index of items that are there when it is built.

    index: FAISS's own. exact: whether a search returns the true top items. exact_scores: whether
    the scores of what it returns are inner products, and not approximations.
    """

    index: Any
    exact: bool
    exact_scores: bool

    def find(
        self, queries: Embeddings, fetch: int, exclude: Sequence[Exclusion], effort: int
    ) -> Found:
        """``fetch`` items per query, none that is excluded; fewer where it finds no more.

        Args:
            queries: float32 [B, D]. fetch: up to the number of items. exclude: of each query.
                effort: 1, or more for a search that many times as wide.
        """


def built_index(index: Any) -> BuiltIndex | None:
    """How to search an index of FAISS; None for one of a kind that is not built here."""
    kinds: dict[type, Callable[[Any], BuiltIndex]] = {
        faiss.IndexFlatIP: FlatIndex,
        faiss.IndexFlat: FlatIndex,
        faiss.IndexHNSWFlat: GraphIndex,
        faiss.IndexIVFPQ: InvertedIndex,
        faiss.IndexRefine: TwoPassIndex,
        faiss.IndexRefineFlat: TwoPassIndex,
    }
    kind = kinds.get(type(index))
    if kind is None or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        return None
    if kind is TwoPassIndex and not _is_two_pass(index):
        return None
    return kind(index)


class FlatIndex:
    """Compares each query with every item."""

    exact, exact_scores = True, True

    def __init__(self, index: Any) -> None:
        self.index = index
        self._selector = _Selector(int(index.ntotal))

    def find(
        self,
        queries: Embeddings,
        fetch: int,
        exclude: Sequence[Exclusion],
        effort: int,  # noqa: ARG002
    ) -> Found:
        """See ``BuiltIndex``.

        Query by query, since FAISS takes one selector per call; fetching as many more items for
        each query as the longest history of a batch has costs more.
        """
        num_items = int(self.index.ntotal)
        shape = (len(queries), fetch)
        scores, positions = np.empty(shape, np.float32), np.empty(shape, np.int64)
        if any(len(one.items) for one in exclude):
            for row, one in enumerate(exclude):
                own, passing = slice(row, row + 1), None
                if len(one.items):
                    allowed = one.allowed
                    if allowed is None:
                        allowed = allowed_bits(one.items, num_items)
                    passing = self._selector.passing(allowed)
                self.index.search(
                    queries[own], fetch, params=passing, D=scores[own], I=positions[own]
                )
        else:
            self.index.search(queries, fetch, D=scores, I=positions)
        scores[positions < 0] = -np.inf
        return Found(scores, positions + 1, fetch == num_items)


class GraphIndex:
    """Walks a graph of neighbours."""

    exact, exact_scores = False, True

    def __init__(self, index: Any) -> None:
        self.index = index

    def find(
        self, queries: Embeddings, fetch: int, exclude: Sequence[Exclusion], effort: int
    ) -> Found:
        """See ``BuiltIndex``."""
        num_items, index, parameters = int(self.index.ntotal), self.index, None
        depth = _depth(fetch, exclude, num_items)
        if _WIDE * depth >= num_items:
            # A walk over most of the graph costs more than a scan, and misses nodes that no edge
            # leads to.
            index = faiss.downcast_index(index.storage)
        else:
            width = effort * max(index.hnsw.efSearch, depth)
            parameters = _parameters("HNSW", efSearch=width)
        scores, positions = index.search(queries, depth, params=parameters)
        return _kept(scores, positions + 1, exclude, fetch, depth == num_items)


class InvertedIndex:
    """Looks at the compressed vectors of the nearest clusters."""

    exact, exact_scores = False, False

    def __init__(self, index: Any) -> None:
        self.index = index

    def find(
        self, queries: Embeddings, fetch: int, exclude: Sequence[Exclusion], effort: int
    ) -> Found:
        """See ``BuiltIndex``."""
        num_items = int(self.index.ntotal)
        depth = _depth(fetch, exclude, num_items)
        num_probes = min(effort * self.index.nprobe, self.index.nlist)
        parameters = _parameters("IVF", nprobe=num_probes)
        scores, positions = self.index.search(queries, depth, params=parameters)
        complete = depth == num_items and num_probes == self.index.nlist
        return _kept(scores, positions + 1, exclude, fetch, complete)


class TwoPassIndex:
    """Compares each query with all items' compressed vectors, and the best with whole ones."""

    exact, exact_scores = False, True

    def __init__(self, index: Any) -> None:
        self.index = index
        first: Any = faiss.downcast_index(index.base_index)
        self._to_codes: Any = first.chain.at(0)
        codes: Any = faiss.downcast_index(first.index)
        codes.implem = _FAST_SCAN
        self._codes = codes
        flat: Any = faiss.downcast_index(index.refine_index)
        self._vectors = flat
        values = faiss.rev_swig_ptr(flat.get_xb(), index.ntotal * index.d)
        use_huge_pages(values.ctypes.data, values.nbytes)
        self._flat = FlatIndex(self._vectors)

    def find(
        self, queries: Embeddings, fetch: int, exclude: Sequence[Exclusion], effort: int
    ) -> Found:
        """See ``BuiltIndex``."""
        num_items = int(self.index.ntotal)
        wanted = int(np.ceil(self.index.k_factor * effort * max(fetch, _LEAST_WANTED)))
        # What is excluded comes back from the first pass. How far it goes is a power of two, so
        # that queries share a call, and by each query's own exclusions, not by its neighbours'.
        numbers = np.array([wanted + len(one.items) for one in exclude], np.float64)
        depths = (2 ** np.ceil(np.log2(numbers))).astype(np.int64).clip(min=_LEAST_DEPTH)
        scores = np.empty((len(queries), fetch), np.float32)
        item_idx = np.empty((len(queries), fetch), np.int64)
        is_complete = True
        for depth in np.unique(depths).tolist():
            rows = np.flatnonzero(depths == depth)
            own = [exclude[row] for row in rows.tolist()]
            if _WIDE * depth >= num_items:
                found = self._flat.find(queries[rows], fetch, own, effort)
            else:
                found = self._twice(queries[rows], fetch, own, wanted, depth)
            scores[rows], item_idx[rows] = found.scores, found.item_idx
            is_complete &= found.complete
        return Found(scores, item_idx, is_complete)

    def _twice(
        self, queries: Embeddings, fetch: int, exclude: Sequence[Exclusion], wanted: int, depth: int
    ) -> Found:
        # Row by row: of several, the product is rounded otherwise.
        changed = np.concatenate([self._to_codes.apply(row[None]) for row in queries])
        _, found = self._codes.search(changed, depth)
        positions = first_allowed(found + 1, exclude, wanted) - 1
        scores = np.empty(positions.shape, np.float32)
        queries = np.ascontiguousarray(queries)
        to, by = faiss.swig_ptr(scores), faiss.swig_ptr(positions)
        pairs = len(queries), faiss.swig_ptr(queries), wanted
        self._vectors.compute_distance_subset(*pairs, to, by)
        scores[positions < 0] = -np.inf
        best = np.argsort(-scores, axis=1)[:, :fetch]
        best += np.arange(len(queries))[:, None] * wanted
        return Found(scores.take(best), positions.take(best) + 1, False)


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


def _parameters(kind: str, **settings: Any) -> Any:
    """Parameters of one search, so that no search changes the index; FAISS's stubs lack them."""
    return getattr(faiss, f"SearchParameters{kind}")(**settings)


def _depth(fetch: int, exclude: Sequence[Exclusion], num_items: int) -> int:
    """How many to fetch, so that ``fetch`` are left of each query."""
    return min(fetch + max((len(one.items) for one in exclude), default=0), num_items)


def _kept(
    scores: Embeddings, found: Indices, exclude: Sequence[Exclusion], fetch: int, complete: bool
) -> Found:
    """The first ``fetch`` that are not excluded."""
    without_excluded(found, exclude, scores)
    return Found(scores[:, :fetch], found[:, :fetch], complete)


def _is_two_pass(index: Any) -> bool:
    """Whether an ``IndexRefine`` is as ``build_two_pass`` makes it."""
    first, vectors = map(faiss.downcast_index, (index.base_index, index.refine_index))
    chain: Any = getattr(first, "chain", None)
    if type(first) is not faiss.IndexPreTransform or chain.size() != 1:
        return False
    inner, change = faiss.downcast_index(first.index), chain.at(0)
    return (
        isinstance(inner, faiss.IndexPQFastScan)
        and isinstance(vectors, faiss.IndexFlat)
        and isinstance(faiss.downcast_VectorTransform(change), faiss.LinearTransform)
        and {inner.metric_type, vectors.metric_type} == {faiss.METRIC_INNER_PRODUCT}
        and {int(inner.ntotal), int(vectors.ntotal)} == {int(index.ntotal)}
        and (change.d_in, change.d_out, vectors.d) == (index.d, inner.d, index.d)
        and 1 <= index.k_factor <= MAX_REFINE
    )


MAX_REFINE = 8
"""Of what is wanted, how many times as many are scored again at the most."""
