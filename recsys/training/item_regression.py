"""Training a linear tower in closed form: item-to-item regression with priors, cut to low rank.

EASE (Steck 2019) predicts each item of a history from the others by ridge regression. Here three
things are added to its normal equations, each as if more rows had been observed: items that meet
within one sitting, items alike in text, and items alike in attributes. The weights are then cut to
the directions in which the users' scores vary most, which ranks better than the full matrix and
makes the model two towers that meet in one dot product.

Where events weigh differently, what is predicted is not 1 but the square root of an event's weight:
a squared error of such a target counts as the weight says, while a history is read as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse import csr_matrix, dia_matrix, diags, hstack
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from recsys.core.settings import checked, real
from recsys.data.histories import Histories
from recsys.errors import InputError
from recsys.features import ContentFeatures
from recsys.models.two_tower import TwoTower
from recsys.signals.item_graph import co_occurrence_counts, session_sums

CHOSEN = {name: real(0, 1e12) for name in ("content_weight", "l2", "session_weight")}
"""Bounds of what ``choose_regression`` chooses, where it comes from outside."""

Doubles = NDArray[np.float64]

_DENSE = 2_048
"""Users up to which all eigenvectors of their scores' products take less time than a search."""


@dataclass(frozen=True)
class ItemRegression:
    """How a linear tower is fitted. All weights are in units of observed events.

    l2: ridge penalty of the item-to-item weights. session_weight: of co-occurrence within a
    sitting, two events ``seconds`` apart counting 1 / (1 + seconds / time_scale); without times
    there are no sittings. content_weight: of similarity in standardised content features.
    length_discount: a user with n events weighs n ** -length_discount. max_items:
    the largest catalogue; time grows with its cube, memory is about 32 N^2 bytes, or 56 where
    events weigh differently.
    """

    l2: float = 400.0
    session_weight: float = 2.5
    time_scale: float = 100.0
    content_weight: float = 12.0
    length_discount: float = 0.25
    max_items: int = 10_000

    def settings(self) -> Mapping[str, Any]:
        """What ``choose_regression`` chooses, as it is written into a manifest."""
        return {name: float(getattr(self, name)) for name in CHOSEN}

    def with_settings(self, settings: object, remedy: str) -> "ItemRegression":
        """With what a manifest tells of ``settings``.

        Raises:
            InputError: when it is anything else. remedy: for that.
        """
        return replace(self, **checked(settings, CHOSEN, "settled settings", remedy))

    def fit(self, tower: TwoTower, train: Histories, content: ContentFeatures) -> None:
        """Set the parameters of ``tower``, which must be linear and without a bias.

        Raises:
            InputError: when the catalogue is too large, or l2 too small.
            ValueError: when the tower is not linear.
        """
        self.solve(tower, self.counts(train, content))

    def counts(self, train: Histories, content: ContentFeatures) -> "Counts":
        """What the normal equations are made of; ``l2`` and the two weights do not enter it.

        Raises:
            InputError: when the catalogue is too large.
        """
        num_items = len(content.values) - 1
        if num_items > self.max_items:
            raise InputError(
                f"at most {self.max_items:,} items for a tower fitted in closed form",
                f"{num_items:,}",
                "take the towers for large catalogues: retrieval=large_catalog (or raise max_items "
                "where memory and time allow)",
            )
        features = ((content.values - content.mean) * content.scale).double()
        features[0] = 0.0
        # A user's attributes are like further items of the history that are never recommended.
        context = csr_matrix(train.context * (train.lengths > 0)[:, None])
        matrix = hstack([train.matrix(num_items), context]).tocsr()
        length = np.maximum(train.lengths, 1.0)
        typical = length[train.lengths > 0].mean()
        by_user = diags((length / typical) ** -self.length_discount)
        of_item = train.item_counts(num_items).astype(np.float64)
        return Counts(
            matrix,
            matrix.T @ by_user @ matrix,
            self._session(train, num_items, of_item),
            features,
            torch.from_numpy(of_item > 0)[:, None],
            None if train.are_alike else self._excess(train, matrix, by_user, num_items),
        )

    def _session(
        self, train: Histories, num_items: int, of_item: NDArray[np.float64]
    ) -> csr_matrix:
        """What meets within one sitting; nothing where no event is later than another."""
        if not train.has_order:
            return csr_matrix((num_items + 1, num_items + 1), dtype=np.float64)
        session, _ = co_occurrence_counts(train, num_items, time_scale=self.time_scale, taper=True)
        # An event meets itself at a distance of no time.
        return session + diags(of_item)

    def solve(self, tower: TwoTower, counts: "Counts") -> None:
        """As ``fit``, from what ``counts`` has counted.

        Raises:
            InputError: when l2 is too small. ValueError: when the tower is not linear.
        """
        if tower.use_bias or not isinstance(tower.query_tower.mlp, torch.nn.Identity):
            raise ValueError("ItemRegression fits towers with hidden_dim=0 and use_bias=false")
        vectors, candidates = low_rank(self._weights(counts), counts.matrix, tower.embedding_dim)
        size = len(counts.features)
        queries, attributes = vectors[:size], vectors[size:]
        tower.query_tower.items.fix(queries * counts.is_seen)
        tower.candidate_tower.items.fix(candidates * counts.is_seen)
        if tower.query_tower.context is not None:
            with torch.no_grad():
                tower.query_tower.context.weight.copy_(attributes.T)

    def _weights(self, counts: "Counts") -> Tensor:
        """Weights float64 [N + 1 + A, N + 1] of items and attributes, none of an item on itself."""
        features = counts.features
        size = len(features)
        gram = torch.from_numpy(counts.gram.toarray()).double()
        gram[:size, :size] += torch.from_numpy(self.session_weight * counts.session.toarray())
        gram[:size, :size].addmm_(features, features.T, alpha=self.content_weight)
        gram.diagonal().add_(self.l2)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            raise InputError(
                "a ridge penalty that makes the normal equations solvable",
                f"l2={self.l2:g}",
                "raise the tower's objective.l2",
            )
        inverse = torch.cholesky_inverse(factor)
        weights: Tensor = inverse[:, :size] / -inverse.diagonal()[:size]
        if counts.excess is not None:
            # The solution is linear in the targets: what they exceed 1 by adds its own regression,
            # whose diagonal the multipliers of EASE's constraint take back.
            beyond = counts.excess.by_user.toarray().astype(np.float64)
            beyond[:size] += self.session_weight * counts.excess.by_session.toarray()
            added = inverse @ torch.from_numpy(beyond)
            weights = weights * (1.0 + added.diagonal()) + added
        return weights.fill_diagonal_(0.0)

    def _excess(
        self, train: Histories, matrix: csr_matrix, by_user: dia_matrix, num_items: int
    ) -> "Excess":
        beyond = np.sqrt(train.relative_weights) - np.float32(1.0)
        by_pair = matrix.T @ by_user @ train.matrix_of(beyond, num_items)
        if not train.has_order:
            return Excess(by_pair, csr_matrix((num_items + 1, num_items + 1)))
        session = session_sums(train, num_items, beyond, time_scale=self.time_scale, taper=True)
        own = np.bincount(train.item_idx, beyond, minlength=num_items + 1)
        return Excess(by_pair, session + diags(own))


class Excess(NamedTuple):
    """Right-hand sides of targets beyond 1.

    by_user: sparse [N + 1 + A, N + 1]. by_session: sparse [N + 1, N + 1].
    """

    by_user: csr_matrix
    by_session: csr_matrix


class Counts(NamedTuple):
    """What the normal equations of some events are made of.

    matrix: sparse [U + 1, N + 1 + A], of users' items and attributes. gram: sparse [N + 1 + A,
    N + 1 + A], of the users' rows, each by its weight. session: sparse [N + 1, N + 1]. features:
    standardised content, float64 [N + 1, F]. is_seen: bool [N + 1, 1], whether there are events.
    excess: None where all events weigh the same.
    """

    matrix: csr_matrix
    gram: csr_matrix
    session: csr_matrix
    features: Tensor
    is_seen: Tensor
    excess: Excess | None


def low_rank(weights: Tensor, matrix: csr_matrix, rank: int) -> tuple[Tensor, Tensor]:
    """The rank-``rank`` model whose scores of the training users are closest to the full ones.

    With V the leading eigenvectors of W' X' X W, X W V V' is the best approximation of X W in the
    least-squares sense (reduced-rank regression, Izenman 1975).

    Args:
        weights: W, float64 [M, N + 1]. matrix: X, [U + 1, M].

    Returns:
        Query vectors W V float64 [M, rank] and candidate vectors V float64 [N + 1, rank]; columns
        beyond the rank of the scores are zero.
    """
    size = weights.shape[1]
    dense = weights.numpy()
    events = matrix.astype(np.float64)
    found = min(rank, size - 1)
    candidates = torch.zeros(size, rank, dtype=torch.float64)
    if events.shape[0] <= min(size, _DENSE):
        vectors = _leading_dense(events @ dense, found)
    else:
        vectors = _leading_sparse(events, dense, found)
    candidates[:, : vectors.shape[1]] = torch.from_numpy(vectors)
    candidates[0] = 0.0
    return weights @ candidates, candidates


def _leading_dense(scores: Doubles, number: int) -> Doubles:
    """The leading right singular vectors of S [m, n], m <= n, at most ``number``: by S S'."""
    size = len(scores)
    values, vectors = eigh(scores @ scores.T, subset_by_index=[max(size - number, 0), size - 1])
    # Of the others, which are 0 but for rounding, the directions mean nothing.
    real = values > values[-1] * size * np.finfo(np.float64).eps
    values, vectors = values[real][::-1], vectors[:, real][:, ::-1]
    found: Doubles = scores.T @ (vectors / np.sqrt(values))
    return found


def _leading_sparse(events: csr_matrix, dense: Doubles, number: int) -> Doubles:
    """As ``_leading_dense`` of ``events @ dense``, which is not formed where it has more rows than
    ``dense``.
    """
    # Products of few users' scores are kept: each step of the search is then a pass over a matrix.
    scores = events @ dense if events.shape[0] <= dense.shape[0] else None

    def covariance(vector: Doubles) -> Doubles:
        image: Doubles
        if scores is not None:
            image = (scores @ vector) @ scores
        else:
            image = dense.T @ (events.T @ (events @ (dense @ vector)))
        return image

    size = dense.shape[1]
    operator = LinearOperator((size, size), matvec=covariance, dtype=np.float64)
    start = np.random.default_rng(0).normal(size=size)
    _, vectors = eigsh(operator, k=number, v0=start)
    found: Doubles = vectors[:, ::-1].copy()
    return found
