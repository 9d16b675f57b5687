"""Large catalogues: compressed vectors choose, whole vectors decide.

The first pass compares a query with 4-bit codes of all items, which a core reads many times as fast
as their vectors (FAISS's fast scan, after André et al., 2015); what comes out best is scored again,
exactly. The codes err least where it matters, for the queries that come (Guo et al., 2016,
"Quantization based fast inner product search"): items are multiplied by the root of the queries'
second moments, and queries by its inverse, which leaves inner products as they are. Of the result's
principal components, which are uncorrelated, each code is of the one with the largest error left,
as reverse water-filling has it: leading ones get several codes, each of what those before leave.
"""

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.index.built import MAX_REFINE
from recsys.index.candidate_index import CandidateIndex
from recsys.index.exclusions import Embeddings, Indices

log = logging.getLogger(__name__)

QuerySample = Callable[[], Embeddings]
"""Query embeddings float32 [n, D] of real histories, in random order; called where needed."""

NUM_LEVELS = 16
"""That a code of 4 bits tells apart."""
_FEWEST_QUERIES = 2
"""One to fit codes, one to measure them."""
FEWEST_ITEMS = 39 * NUM_LEVELS
"""FAISS's own minimum to find as many centroids."""
NUM_CODES = (32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512, 768)
"""Of an item, at most; tried in turn."""
_FIRST_CODES = 128
"""More are fitted only where these do not do."""
_FACTOR_STEP = 0.05
"""How many times as many as are wanted are scored again is a multiple of it."""
_CODE_COST = 0.2
"""Of reading a byte of codes, which lie in a row, to a byte of vectors, which lie anywhere:
.028 and .13 ms a megabyte for 8 queries at a time."""
_LEAST_MOMENT = 1e-3
"""Of the largest: a direction that no query of the sample has may still be in one that comes."""
_LEAST_ERROR = 1e-7
"""Of the components' variance: below it no more codes are needed."""
_NUM_BINS, _LLOYD_STEPS = 4096, 12
"""Of a histogram, and steps, to find the levels of a code."""


class Codes(NamedTuple):
    """M codes per item: ``queries @ of_queries`` times what they stand for is near the scores.

    values: float32 [N, M], of which each code is the nearest level. levels: float32 [M, 16].
    of_queries: float32 [D, M].
    """

    values: Embeddings
    levels: Embeddings
    of_queries: Embeddings

    def first(self, number: int) -> "Codes":
        """The first codes alone: the same as if no more had been asked for."""
        return Codes(self.values[:, :number], self.levels[:number], self.of_queries[:, :number])


def fit_codes(vectors: Embeddings, queries: Embeddings, num_codes: int) -> Codes:
    """At most ``num_codes`` codes of items float32 [N, D], for queries float32 [n, D] and alike.

    What all items have in common, which changes a query's scores by the same for all, is left out.
    """
    moments = queries.T.astype(np.float64) @ queries / len(queries)
    values, axes = np.linalg.eigh(moments)
    values = np.maximum(values, max(float(values[-1]), 1e-12) * _LEAST_MOMENT)
    root, inverse = ((axes * values**power) @ axes.T for power in (0.5, -0.5))
    spread = np.cov(vectors, rowvar=False).reshape(len(root), -1)
    _, components = np.linalg.eigh(root @ spread @ root)
    centred = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    left = np.asfortranarray(centred @ (root @ components), np.float32)
    error = left.var(axis=0, dtype=np.float64)
    enough = _LEAST_ERROR * error.sum()
    columns: list[int] = []
    coded: list[Embeddings] = []
    levels: list[Embeddings] = []
    while len(columns) < num_codes and (not columns or error.max() > enough):
        column = int(error.argmax())
        own = _levels(left[:, column])
        columns.append(column)
        coded.append(left[:, column].copy())
        levels.append(own)
        left[:, column] -= own[_nearest(left[:, column], own)]
        error[column] = left[:, column].var(dtype=np.float64)
    of_queries = (inverse @ components)[:, columns].astype(np.float32)
    return Codes(np.stack(coded, axis=1), np.stack(levels), of_queries)


def _levels(values: Embeddings) -> Embeddings:
    """16 levels that are near numbers [n] in the mean square, ascending.

    Lloyd's steps (1982), from levels as dense as the cube root of the numbers' density is, which
    for many levels is best (Panter and Dite, 1951): a few numbers far from all others, as items
    that go with few others have, are most of the error, and need levels of their own.
    """
    # In 64 bits there is room for as many bins, however alike the numbers are.
    counts, edges = np.histogram(values.astype(np.float64), _NUM_BINS)
    bins = (edges[1:] + edges[:-1]) / 2
    share = np.cumsum(np.cbrt(counts))
    levels = np.interp((np.arange(NUM_LEVELS) + 0.5) / NUM_LEVELS, share / share[-1], bins)
    for _ in range(_LLOYD_STEPS):
        nearest = _nearest(bins, levels)
        number = np.bincount(nearest, counts, minlength=NUM_LEVELS)
        sums = np.bincount(nearest, counts * bins, minlength=NUM_LEVELS)
        levels = np.sort(np.where(number > 0, sums / np.maximum(number, 1), levels))
    found: Embeddings = levels.astype(np.float32)
    return found


def _nearest(values: Embeddings, levels: NDArray[np.floating]) -> Indices:
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values)


def _growing_codes(vectors: Embeddings, queries: Embeddings) -> Iterator[Codes]:
    """Codes of each number of ``NUM_CODES`` in turn, as far as there are more of them."""
    codes, before = fit_codes(vectors, queries, _FIRST_CODES), 0
    for number in NUM_CODES:
        if number > _FIRST_CODES and before == _FIRST_CODES:
            codes = fit_codes(vectors, queries, NUM_CODES[-1])
        some = codes.first(number)
        if len(some.levels) == before:
            break
        before = len(some.levels)
        yield some


class _Choice(NamedTuple):
    """cost: in bytes of vectors read by query. factor: of what is wanted, how many times as many
    are scored again. share: found.
    """

    cost: float
    first_pass: faiss.IndexPreTransform
    num_codes: int
    factor: float
    share: float


def build_two_pass(
    embeddings: Embeddings, sample: QuerySample, depth: int, target: float
) -> CandidateIndex | None:
    """Index vectors float32 [N, D]; None, with a line in the log, where it finds too little.

    Of all numbers of codes and of candidates scored again that find enough, those that read least.

    Args:
        sample: half of it fits the codes, on the other half recall is measured. depth: how many
            items a search is for. target: share of the true ``depth`` best that it must find.

    Raises:
        InputError: when there are too few items for codes.
    """
    num_items, dim = embeddings.shape
    if num_items < FEWEST_ITEMS:
        raise InputError(
            f"at least {FEWEST_ITEMS} items for an index of compressed vectors",
            f"{num_items} items",
            "set index=flat, which is exact and fast at this size",
        )
    queries = sample()
    if len(queries) < _FEWEST_QUERIES:
        log.info("index: %d histories, too few to fit codes: exact search instead", len(queries))
        return None
    fitting, held_out = queries[::2], queries[1::2]
    depth = min(depth, num_items)
    _, true = faiss.knn(held_out, embeddings, depth, metric=faiss.METRIC_INNER_PRODUCT)
    vector_bytes = depth * dim * embeddings.itemsize
    best: _Choice | None = None
    share = 0.0
    for codes in _growing_codes(embeddings, fitting):
        code_bytes = _CODE_COST * num_items * len(codes.levels) / 2
        if best is not None and code_bytes + vector_bytes >= best.cost:
            break
        first_pass = _first_pass(codes)
        _, found = first_pass.search(held_out, min(MAX_REFINE * depth, num_items))
        places = _places(true + 1, found + 1)
        enough = int(np.quantile(places, target, method="higher")) + 1
        factor = np.ceil(enough / depth / _FACTOR_STEP) * _FACTOR_STEP
        factor = min(max(factor, 1.0), MAX_REFINE)
        share = float((places < factor * depth).mean())
        cost = code_bytes + factor * vector_bytes
        if share >= target and (best is None or cost < best.cost):
            best = _Choice(cost, first_pass, len(codes.levels), float(factor), share)
    if best is None:
        log.info(
            "index: codes find %.1f%% of the true best %d, fewer than %.1f%%: exact search instead",
            *(100 * share, depth, 100 * target),
        )
        return None
    log.info(
        "index: %d codes of 4 bits an item, %g times the candidates scored again; "
        "finds %.1f%% of the true best %d of %d other histories",
        *(best.num_codes, best.factor, 100 * best.share, depth, len(held_out)),
    )
    flat = faiss.IndexFlatIP(dim)
    flat.add(embeddings)
    index = faiss.IndexRefine(best.first_pass, flat)
    index.k_factor = best.factor
    return CandidateIndex(index)


def _first_pass(codes: Codes) -> faiss.IndexPreTransform:
    dim, number = codes.of_queries.shape
    index = faiss.IndexPQFastScan(number, number, 4, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(np.ascontiguousarray(codes.levels).ravel(), index.pq.centroids)
    index.is_trained = True
    index.add(np.ascontiguousarray(codes.values))
    # What is searched for is changed on the way in; what is stored has been.
    change = faiss.LinearTransform(dim, number, False)
    change.A.resize(dim * number)
    faiss.copy_array_to_vector(np.ascontiguousarray(codes.of_queries.T).ravel(), change.A)
    change.is_trained = True
    return faiss.IndexPreTransform(change, index)


def _places(items: Indices, found: Indices) -> Indices:
    """Where in the same row of found [n, F], 0 = none, items [n, K] are; far off where nowhere."""
    rows = np.arange(len(items))[:, None] * (1 + int(max(items.max(), found.max())))
    wanted, keys = (items + rows).ravel(), (found + rows).ravel()
    by_key = np.argsort(keys)
    at = by_key[np.searchsorted(keys, wanted, sorter=by_key).clip(max=len(keys) - 1)]
    nowhere = np.iinfo(np.int64).max
    places: Indices = np.where(keys[at] == wanted, at % found.shape[1], nowhere)
    return places.reshape(items.shape)
