"""The bars to clear: popularity, implicit ALS and EASE behind one protocol."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from recsys.data.histories import Histories
from recsys.errors import InputError
from recsys.ranking import top_k
from recsys.schema import PAD_IDX

log = logging.getLogger(__name__)

_SCORES_PER_CHUNK = 2_000_000
_GRAM_ROWS_PER_CHUNK = 1024


class Baseline(Protocol):
    """A recommender of the users and items it was fitted on."""

    def scores(self, user_idx: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores [B, num_items + 1] of every item for users [B]; column 0 (padding) is -inf.

        Training items are scored like any other; ``rank`` leaves them out.
        """


FitBaseline = Callable[[Histories, int], Baseline]
"""Fits a baseline to training histories, given the number of items."""


class TooManyItemsError(InputError):
    """A baseline that is quadratic in the catalogue was asked for too large a one."""


@dataclass(frozen=True)
class Popularity:
    """Every user gets the items that most users have. counts: float32 [N + 1]."""

    counts: NDArray[np.float32]

    def scores(self, user_idx: NDArray[np.int64]) -> NDArray[np.float32]:
        return _without_padding(np.tile(self.counts, (len(user_idx), 1)))


@dataclass(frozen=True)
class MatrixFactors:
    """A user's score of an item is the dot product of their factors.

    user_factors: float32 [U + 1, K]. item_factors: float32 [N + 1, K].
    """

    user_factors: NDArray[np.float32]
    item_factors: NDArray[np.float32]

    def scores(self, user_idx: NDArray[np.int64]) -> NDArray[np.float32]:
        return _without_padding(self.user_factors[user_idx] @ self.item_factors.T)


@dataclass(frozen=True)
class ItemWeights:
    """A user's score of an item is the sum of the weights from the user's items to it.

    matrix: sparse float32 [U + 1, N + 1]. weights: float32 [N + 1, N + 1], from row to column.
    """

    matrix: csr_matrix
    weights: NDArray[np.float32]

    def scores(self, user_idx: NDArray[np.int64]) -> NDArray[np.float32]:
        return _without_padding(self.matrix[user_idx] @ self.weights)


def fit_popularity(train: Histories, num_items: int) -> Popularity:
    """Count each item's training events, each by its weight."""
    return Popularity(train.item_strengths(num_items).astype(np.float32))


def fit_als(
    train: Histories,
    num_items: int,
    factors: int = 32,
    regularization: float = 10.0,
    alpha: float = 1.0,
    iterations: int = 20,
    seed: int = 0,
) -> MatrixFactors:
    """Factorise the implicit matrix by alternating least squares.

    Args:
        factors: width of a user's and an item's vector.
        regularization: L2 weight on the factors.
        alpha: weight of an observed entry of average weight; an unobserved one weighs 1.
        iterations: rounds over users and items.
        seed: of the random initial factors; the same seed gives the same factors.

    Source: Hu, Koren, Volinsky 2008, by the ``implicit`` library.
    """
    from implicit.cpu.als import AlternatingLeastSquares

    entries = train.matrix(num_items)
    if not train.are_alike:
        entries = train.matrix_of(train.relative_weights, num_items)
    # The library has threads of its own; BLAS threads inside them slow it down tenfold.
    with threadpool_limits(limits=1, user_api="blas"):
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=regularization,
            alpha=alpha,
            iterations=iterations,
            random_state=seed,
            num_threads=torch.get_num_threads(),
        )
        model.fit(entries, show_progress=False)
    return MatrixFactors(model.user_factors, model.item_factors)


def fit_ease(
    train: Histories, num_items: int, regularization: float = 400.0, max_items: int = 20_000
) -> ItemWeights:
    """Fit the linear item-to-item model with a zero diagonal, in closed form.

    It inverts a dense [N + 1, N + 1] float32 matrix: about 12 N^2 bytes at the peak.

    Args:
        regularization: L2 weight on the item-to-item weights (lambda).
        max_items: refuse a larger catalogue; 20,000 items take about 5 GB.

    Raises:
        TooManyItemsError: when the catalogue is larger than ``max_items``.

    Source: Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data".
    """
    if num_items > max_items:
        raise TooManyItemsError(
            f"at most {max_items} items for EASE",
            f"{num_items}",
            "leave it out, or raise baselines.ease.max_items where memory allows",
        )
    matrix = train.matrix(num_items)
    by_item = matrix.T.tocsr()
    gram = np.empty((num_items + 1, num_items + 1), dtype=np.float32)
    for start in range(0, len(gram), _GRAM_ROWS_PER_CHUNK):
        rows = slice(start, start + _GRAM_ROWS_PER_CHUNK)
        gram[rows] = (by_item[rows] @ matrix).toarray()
    system = torch.from_numpy(gram)
    system.diagonal().add_(regularization)
    weights = torch.cholesky_inverse(torch.linalg.cholesky(system))
    weights /= -weights.diagonal().clone()
    weights.fill_diagonal_(0.0)
    return ItemWeights(matrix, weights.numpy())


def fit_all(
    fits: Mapping[str, FitBaseline], train: Histories, num_items: int
) -> dict[str, Baseline]:
    """Fit each baseline in turn; one too costly for the catalogue is logged and left out."""
    fitted: dict[str, Baseline] = {}
    for name, fit in fits.items():
        started = time.perf_counter()
        try:
            fitted[name] = fit(train, num_items)
        except TooManyItemsError as error:
            log.warning("baseline %s left out: %s", name, error)
            continue
        log.info("baseline %s fitted in %.1f s", name, time.perf_counter() - started)
    return fitted


def rank(
    baseline: Baseline, train: Histories, user_idx: NDArray[np.int64], k: int, seed: int = 0
) -> NDArray[np.int64]:
    """The ``k`` best items [B, k] of users [B], best first; their training items are left out.

    Ties are broken by the seeded hash of ``recsys.ranking``. A user with fewer than ``k`` items
    left has 0 in the empty slots. Users are taken in chunks, so memory does not grow with B.
    """
    ranked = np.zeros((len(user_idx), k), dtype=np.int64)
    start, size = 0, 1
    while start < len(user_idx):
        chunk = user_idx[start : start + size]
        scores = baseline.scores(chunk)
        history = train.pad(chunk)
        rows = np.broadcast_to(np.arange(len(chunk))[:, None], history.mask.shape)
        # Padding points at column 0, which is -inf already.
        scores[rows, history.item_idx.numpy()] = -np.inf
        _, best = top_k(torch.from_numpy(scores), torch.arange(scores.shape[1]), k, seed)
        ranked[start : start + len(chunk), : best.shape[1]] = best.numpy()
        start += len(chunk)
        size = max(1, _SCORES_PER_CHUNK // scores.shape[1])
    return ranked


def _without_padding(scores: NDArray[Any]) -> NDArray[np.float32]:
    scores = scores.astype(np.float32, copy=False)
    scores[:, PAD_IDX] = -np.inf
    return scores
