"""Rankers of items that nobody has interacted with, by what is known of them: the bars to clear."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.baselines import Baseline, MatrixFactors
from recsys.data.catalog import Catalog
from recsys.data.histories import Histories
from recsys.ranking import tie_hash
from recsys.schema import PAD_IDX, YEAR

Features = NDArray[np.float32]
"""One row per item, float32 [N + 1, F]; row 0 (padding) is zeros."""

FitFactors = Callable[[Histories, int], MatrixFactors]
"""Factorises training histories, given the number of items."""

REGULARIZATIONS = tuple(float(10**exponent) for exponent in np.arange(-2.0, 4.0, 0.5))
"""L2 weights that the ridge maps choose from."""


def genres_and_year(catalog: Catalog) -> tuple[Features, Features]:
    """Multi-hot genres [N + 1, G]; and genres, decades and the year itself, standardised.

    Decades alone lose what a year tells. An item without a year counts as of the mean year.
    """
    year = catalog.items[YEAR].astype("Float64").to_numpy(np.float64, na_value=np.nan)
    known = year[~np.isnan(year)]
    standardized = np.zeros((len(year) + 1, 1), dtype=np.float32)
    if len(known) and known.std() > 0:
        standardized[1:, 0] = np.nan_to_num((year - known.mean()) / known.std())
    is_genre = [name.startswith("genre: ") for name in catalog.attribute_names]
    with_year = np.concatenate([catalog.attributes, standardized], axis=1)
    return catalog.attributes[:, is_genre], with_year


@dataclass(frozen=True)
class Random:
    """An order of its own for each user, by hash. num_items: N."""

    num_items: int
    seed: int

    def scores(self, user_idx: NDArray[np.int64]) -> NDArray[np.float32]:
        width = self.num_items + 1
        pairs = user_idx[:, None] * width + np.arange(width)
        scores = tie_hash(torch.from_numpy(pairs), self.seed).numpy().astype(np.float32)
        scores[:, PAD_IDX] = -np.inf
        return scores


@dataclass(frozen=True)
class Among:
    """Another ranker's scores, with every item that is not ``allowed`` left out.

    allowed: bool [N + 1].
    """

    ranker: Baseline
    allowed: NDArray[np.bool_]

    def scores(self, user_idx: NDArray[np.int64]) -> NDArray[np.float32]:
        scores = self.ranker.scores(user_idx)
        scores[:, ~self.allowed] = -np.inf
        return scores


@dataclass(frozen=True)
class HistorySimilarity:
    """Content-based kNN: an item's mean cosine similarity to the items of the user's history.

    The mean over a history is one dot product with the mean of its unit vectors, so no item-to-item
    matrix is formed (Lops, de Gemmis & Semeraro 2011).

    profiles: float32 [U + 1, F]. vectors: float32 [N + 1, F], of length 1 or 0.
    """

    profiles: NDArray[np.float32]
    vectors: NDArray[np.float32]

    def scores(self, user_idx: NDArray[np.int64]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = self.profiles[user_idx] @ self.vectors.T
        scores[:, PAD_IDX] = -np.inf
        return scores


def fit_similarity(train: Histories, features: Features) -> HistorySimilarity:
    """Profiles of all users from their training histories, features centred.

    The mean over items with training events is taken off first. It is what text vectors have in
    common, and tells no item from another: with it, these rankers are far weaker.
    """
    seen = train.item_counts(len(features) - 1) > 0
    vectors: Features = features - features[seen].mean(axis=0)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(norms > 0, norms, 1)
    vectors[PAD_IDX] = 0
    return HistorySimilarity(mean_of_histories(train, vectors), vectors)


def mean_of_histories(train: Histories, vectors: Features) -> NDArray[np.float32]:
    """The mean vector of each user's items, float32 [U + 1, F]; zeros for an empty history."""
    weights = (1 / np.maximum(train.lengths, 1))[train.user_idx].astype(np.float32)
    shape = (train.num_users + 1, len(vectors))
    means: NDArray[np.float32] = (
        csr_matrix((weights, train.item_idx, train.offsets), shape) @ vectors
    )
    return means


@dataclass(frozen=True)
class RidgeMap:
    """A linear map from content features to factors.

    mean: float64 [F], of the features. weights: float64 [F, K]. bias: float64 [K].
    """

    mean: NDArray[np.float64]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def predict(self, features: Features) -> NDArray[np.float32]:
        """float32 [n, F] -> [n, K]."""
        return ((features - self.mean) @ self.weights + self.bias).astype(np.float32)


def fit_ridge(
    features: Features, targets: NDArray[np.float32], regularizations: Sequence[float]
) -> list[RidgeMap]:
    """Least squares with an L2 penalty, one map per penalty; the bias is not penalised.

    One eigendecomposition serves all penalties.

    Args:
        features: [n, F]. targets: [n, K].
    """
    mean = features.mean(axis=0, dtype=np.float64)
    bias = targets.mean(axis=0, dtype=np.float64)
    x = features - mean
    values, vectors = np.linalg.eigh(x.T @ x)
    projected = vectors.T @ (x.T @ (targets - bias))
    return [
        RidgeMap(mean, vectors @ (projected / (values + penalty)[:, None]), bias)
        for penalty in regularizations
    ]


def join_blocks(blocks: Sequence[Features], seen: NDArray[np.bool_]) -> Features:
    """Features side by side, each block scaled to a total variance of 1 over the ``seen`` items.

    One factor per block: scaled column by column, a few attributes drown in the columns of the
    text vectors.
    """
    totals = [float(block[seen].var(axis=0).sum()) for block in blocks]
    scaled = [b / np.float32(v**0.5 if v > 0 else 1) for b, v in zip(blocks, totals, strict=True)]
    return np.concatenate(scaled, axis=1)


def map_factors(
    train: Histories,
    factors: MatrixFactors,
    blocks: Sequence[Features],
    regularizations: Sequence[float],
) -> list[MatrixFactors]:
    """Factors with those of items without training events predicted from their features.

    The maps, one per penalty, are fitted to the items that have events (Gantner et al. 2010,
    "Learning Attribute-to-Feature Mappings for Cold-Start Recommendations").
    """
    seen = train.item_counts(len(blocks[0]) - 1) > 0
    unseen = ~seen
    unseen[PAD_IDX] = False
    features = join_blocks(blocks, seen)
    mapped = []
    for ridge in fit_ridge(features[seen], factors.item_factors[seen], regularizations):
        item_factors = factors.item_factors.copy()
        item_factors[unseen] = ridge.predict(features[unseen])
        mapped.append(MatrixFactors(factors.user_factors, item_factors))
    return mapped
