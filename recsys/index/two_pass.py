"""Large catalogues: compressed vectors choose, whole vectors decide.

The first pass compares a query with 4-bit codes of all items, which a core reads many times as fast
as their vectors (FAISS's fast scan, after André et al., 2015); what comes out best is scored again,
exactly. Codes err least where it matters when they are made for the queries that come: items are
multiplied by the root of the queries' second moments, and queries by its inverse (Guo et al., 2016,
"Quantization based fast inner product search"), which leaves inner products as they are; of the
result the leading principal components are kept and turned at random, so that all codes carry
alike.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.index.candidate_index import CandidateIndex
from recsys.index.exclusions import Embeddings, Indices

log = logging.getLogger(__name__)

QuerySample = Callable[[], Embeddings]
"""Query embeddings float32 [n, D] of real histories, in random order; called where needed."""

FEWEST_ITEMS = 39 * 2**4
"""FAISS's own minimum to find the 16 values of a 4-bit code by k-means."""
NUM_CODES = (64, 128, 256)
"""Of an item, tried in turn, as far as the width goes: few do where vectors lie near a plane."""
REFINE_FACTORS = (1.5, 2.0, 3.0, 4.0)
"""Tried in turn for each: of what is wanted, how many times as many are scored again."""
_LEAST_MOMENT = 1e-3
"""Of the largest: a direction that no query of the sample has may still be in one that comes."""
_SEED = 0


class Compression(NamedTuple):
    """Maps float32 [D, C] that keep inner products as well as C numbers can.

    centre: float32 [D], taken off items, which changes a query's scores by the same for all.
    """

    of_items: Embeddings
    of_queries: Embeddings
    centre: Embeddings


def fit_compression(vectors: Embeddings, queries: Embeddings, num_codes: int) -> Compression:
    """To C numbers, at most ``num_codes``: for items float32 [N, D], queries float32 [n, D]."""
    moments = queries.T.astype(np.float64) @ queries / len(queries)
    values, axes = np.linalg.eigh(moments)
    values = np.maximum(values, max(float(values[-1]), 1e-12) * _LEAST_MOMENT)
    root, inverse = ((axes * values**power) @ axes.T for power in (0.5, -0.5))
    centre = vectors.mean(axis=0)
    spread = np.cov(vectors, rowvar=False).reshape(len(centre), -1)
    _, components = np.linalg.eigh(root @ spread @ root)
    leading = components[:, ::-1][:, :num_codes]
    number = leading.shape[1]
    turn, _ = np.linalg.qr(np.random.default_rng(_SEED).normal(size=(number, number)))
    maps = ((side @ leading @ turn).astype(np.float32) for side in (root, inverse))
    return Compression(next(maps), next(maps), centre)


def build_two_pass(
    embeddings: Embeddings, sample: QuerySample, depth: int, target: float
) -> CandidateIndex | None:
    """Index vectors float32 [N, D]; None, with a line in the log, where it finds too little.

    Args:
        sample: half of it fits the codes, on the other half recall is measured. depth: how many
            items a search is for. target: share of the true ``depth`` best that it must find; the
            least factor of ``REFINE_FACTORS`` that does is taken.

    Raises:
        InputError: when there are too few items for codes.
    """
    num_items = len(embeddings)
    if num_items < FEWEST_ITEMS:
        raise InputError(
            f"at least {FEWEST_ITEMS} items for an index of compressed vectors",
            f"{num_items} items",
            "set index=flat, which is exact and fast at this size",
        )
    queries = sample()
    fitting, held_out = queries[::2], queries[1::2]
    flat = faiss.IndexFlatIP(embeddings.shape[1])
    flat.add(embeddings)
    depth = min(depth, num_items)
    _, true = faiss.knn(held_out, embeddings, depth, metric=faiss.METRIC_INNER_PRODUCT)
    share = 0.0
    for num_codes in _numbers_of_codes(embeddings.shape[1]):
        compression = fit_compression(embeddings, fitting, num_codes)
        index = faiss.IndexRefine(_first_pass(embeddings, compression), flat)
        for factor in REFINE_FACTORS:
            index.k_factor = factor
            found = CandidateIndex(index)
            _, item_idx = found.search(held_out, depth)
            share = _recall(item_idx - 1, true)
            if share >= target:
                log.info(
                    "index: %d codes of 4 bits per item, %g times the candidates scored again; "
                    "finds %.1f%% of the true best %d of %d other histories",
                    *(num_codes, factor, 100 * share, depth, len(held_out)),
                )
                return found
    log.info(
        "index: codes find %.1f%% of the true best %d, fewer than %.1f%%: exact search instead",
        *(100 * share, depth, 100 * target),
    )
    return None


def _numbers_of_codes(dim: int) -> list[int]:
    """Those of ``NUM_CODES`` up to the first that keeps all of the width."""
    return [number for number in NUM_CODES if number < 2 * dim] or [NUM_CODES[0]]


def _first_pass(embeddings: Embeddings, compression: Compression) -> faiss.IndexPreTransform:
    dim, number = compression.of_queries.shape
    codes = faiss.IndexPQFastScan(number, number, 4, faiss.METRIC_INNER_PRODUCT)
    centred = embeddings - compression.centre
    compressed = np.ascontiguousarray(centred @ compression.of_items, np.float32)
    codes.train(compressed)
    codes.add(compressed)
    # What is searched for is changed on the way in; what is stored has been.
    change = faiss.LinearTransform(dim, number, False)
    change.A.resize(dim * number)
    faiss.copy_array_to_vector(np.ascontiguousarray(compression.of_queries.T).ravel(), change.A)
    change.is_trained = True
    return faiss.IndexPreTransform(change, codes)


def _recall(found: Indices, true: NDArray[np.int64]) -> float:
    """Mean share of true [n, K] in the same row of found [n, K]."""
    rows = np.arange(len(true))[:, None] * (int(true.max(initial=0)) + 2)
    return float(np.isin(true + rows, found + rows).mean())
