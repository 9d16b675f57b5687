"""Building indexes; ``configs/index`` chooses one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import faiss
import numpy as np

from recsys.errors import InputError
from recsys.index.candidate_index import CandidateIndex
from recsys.index.exclusions import Embeddings
from recsys.index.two_pass import QuerySample, build_two_pass

log = logging.getLogger(__name__)

_POINTS_PER_CENTROID = 39
"""FAISS's own minimum for k-means; below it centroids follow noise."""
_MIN_CODE_BITS, _MAX_CODE_BITS = 4, 8


class IndexBuilder(Protocol):
    """What ``configs/index/*.yaml`` builds."""

    def build(self, embeddings: Embeddings, sample: QuerySample) -> CandidateIndex:
        """Index embeddings float32 [N + 1, D]; row 0 (padding) is left out.

        Args:
            sample: of the queries that it will be searched by.
        """


@dataclass(frozen=True)
class AutoIndexBuilder:
    """Exact search of a small catalogue, two passes for a large one.

    exact_up_to: items of a small one. recall: share of the true best that two passes must find,
    among ``depth``; where they do not, search is exact. Measured on queries that the codes were
    not made for.
    """

    exact_up_to: int = 10_000
    recall: float = 0.99
    depth: int = 200

    def build(self, embeddings: Embeddings, sample: QuerySample) -> CandidateIndex:
        """Index embeddings float32 [N + 1, D]; the same input gives the same index.

        Raises:
            InputError: when an embedding is not finite, or items are too few for two passes.
        """
        found = None
        if len(embeddings) - 1 > self.exact_up_to:
            found = build_two_pass(_stored_vectors(embeddings), sample, self.depth, self.recall)
        return found or FlatIndexBuilder().build(embeddings)


@dataclass(frozen=True)
class FlatIndexBuilder:
    """Exact search: every query is compared with every item."""

    def build(
        self,
        embeddings: Embeddings,
        sample: QuerySample | None = None,  # noqa: ARG002
    ) -> CandidateIndex:
        """Index embeddings float32 [N + 1, D].

        Raises:
            InputError: when an embedding is not finite.
        """
        vectors = _stored_vectors(embeddings)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return CandidateIndex(index)


@dataclass(frozen=True)
class HnswIndexBuilder:
    """Graph search (Malkov & Yashunin, 2018): fast, nearly exact, keeps the vectors whole.

    num_neighbors: edges per node, M. build_width: efConstruction. search_width: efSearch, raised to
    the number of items fetched where that is larger.
    """

    num_neighbors: int = 32
    build_width: int = 200
    search_width: int = 128

    def build(
        self,
        embeddings: Embeddings,
        sample: QuerySample | None = None,  # noqa: ARG002
    ) -> CandidateIndex:
        """Index embeddings float32 [N + 1, D]; the same input gives the same graph.

        Raises:
            InputError: when an embedding is not finite.
        """
        vectors = _stored_vectors(embeddings)
        index = faiss.IndexHNSWFlat(
            vectors.shape[1], self.num_neighbors, faiss.METRIC_INNER_PRODUCT
        )
        index.hnsw.efConstruction = self.build_width
        index.hnsw.efSearch = self.search_width
        with _one_thread():  # With several, the graph depends on which of them is first.
            index.add(vectors)
        return CandidateIndex(index)


@dataclass(frozen=True)
class IvfPqIndexBuilder:
    """Inverted lists of product-quantised vectors (Jégou et al., 2011): small, approximate scores.

    The number of lists and the bits per code are lowered, with a line in the log, to what the
    catalogue can train (39 vectors per centroid); under 624 items not even 4 bits are.

    num_lists: coarse clusters; None = 4 sqrt(N). num_subvectors: bytes per item at 8 bits; divides
    the width; None = the most that leave two dimensions or more to each. code_bits: 4 to 8.
    num_probes: lists visited per query.
    """

    num_lists: int | None = None
    num_subvectors: int | None = None
    code_bits: int = 8
    num_probes: int = 16

    def build(
        self,
        embeddings: Embeddings,
        sample: QuerySample | None = None,  # noqa: ARG002
    ) -> CandidateIndex:
        """Train on and index embeddings float32 [N + 1, D].

        Raises:
            InputError: when an embedding is not finite, the catalogue is too small, or a parameter
                does not fit.
        """
        vectors = _stored_vectors(embeddings)
        num_items, dim = vectors.shape
        num_lists, num_subvectors, code_bits = self._fitting(num_items, dim)
        quantizer = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFPQ(
            quantizer, dim, num_lists, num_subvectors, code_bits, faiss.METRIC_INNER_PRODUCT
        )
        index.nprobe = min(self.num_probes, num_lists)
        index.train(vectors)
        index.add(vectors)
        return CandidateIndex(index)

    def _fitting(self, num_items: int, dim: int) -> tuple[int, int, int]:
        """Lists, sub-vectors and bits that ``num_items`` vectors of width ``dim`` can train."""
        divisors = [n for n in range(1, dim + 1) if dim % n == 0]
        num_subvectors = self.num_subvectors or max(n for n in divisors if n == 1 or 2 * n <= dim)
        if num_subvectors not in divisors:
            raise InputError(
                f"index.num_subvectors to divide the embedding width {dim}",
                str(num_subvectors),
                f"set index.num_subvectors to one of {divisors}",
            )
        if not _MIN_CODE_BITS <= self.code_bits <= _MAX_CODE_BITS:
            raise InputError(
                f"index.code_bits in {_MIN_CODE_BITS}..{_MAX_CODE_BITS}",
                str(self.code_bits),
                f"set index.code_bits={_MAX_CODE_BITS}",
            )
        trainable_bits = (num_items // _POINTS_PER_CENTROID).bit_length() - 1
        if trainable_bits < _MIN_CODE_BITS:
            fewest = _POINTS_PER_CENTROID * 2**_MIN_CODE_BITS
            raise InputError(
                f"at least {fewest} items for an ivfpq index",
                f"{num_items} items",
                "set index=flat, which is exact and fast at this size",
            )
        wanted_lists = self.num_lists or int(4 * num_items**0.5)
        num_lists = min(wanted_lists, num_items // _POINTS_PER_CENTROID)
        code_bits = min(self.code_bits, trainable_bits)
        if (num_lists, code_bits) != (wanted_lists, self.code_bits):
            log.info(
                "ivfpq: %d items train %d lists (not %d) and %d-bit codes (configured: %d)",
                *(num_items, num_lists, wanted_lists, code_bits, self.code_bits),
            )
        return num_lists, num_subvectors, code_bits


def _stored_vectors(embeddings: Embeddings) -> Embeddings:
    """Rows 1..N, contiguous and checked."""
    vectors = np.ascontiguousarray(embeddings[1:], np.float32)
    broken = ~np.isfinite(vectors).all(1)
    if broken.any():
        raise InputError(
            "finite candidate embeddings",
            f"{broken.sum()} of {len(vectors)} with NaN or infinity",
            "training diverged: lower the learning rate",
        )
    return vectors


@contextmanager
def _one_thread() -> Iterator[None]:
    num_threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(num_threads)
