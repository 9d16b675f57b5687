"""Training a linear tower for a large catalogue: the leading directions of the normalised matrix.

Users and items are nodes of a graph, and a history is a signal on the items. A low-pass filter of
it, smooth along the graph, ranks as well as graph networks that are trained to (GF-CF, Shen et al.
2021; SVD-GCN, Peng et al. 2022). Here it is a truncated singular value decomposition of
D_u^-a R D_i^-b, where R is the matrix of events and D_u, D_i hold the numbers of events of users
and of items. Exponents below the usual 1/2 keep more of what popular items tell (Peng et al. 2024,
"How Powerful is Graph Filtering for Recommendation"). No matrix of all pairs of items is formed:
time and memory grow with the events and with items times rank.

What was done within one sitting goes together most: sittings are further rows of R. Of two events a
time t apart, rows that hold the events of w seconds from a random start hold both with probability
max(0, 1 - t / w) (random binning, Rahimi & Recht 2007); several w make a kernel with a long tail.
How long a sitting is differs: films are rated by the minute, groceries bought by the week, and some
logs have numbers in place of times.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, vstack
from torch import Tensor

from recsys.core.settings import checked, or_null, real, whole
from recsys.data.histories import Histories
from recsys.data.sittings import sittings, typical_gap
from recsys.features import ContentFeatures
from recsys.metrics import hit_matrix, ndcg_at_k
from recsys.models.two_tower import TwoTower
from recsys.training.event_counting import HALF_LIVES
from recsys.training.leading_directions import leading_directions

log = logging.getLogger(__name__)

CHOSEN = {
    "sitting": or_null(real(1, 1e12)),
    "user_exponent": or_null(real(0, 10)),
    "item_exponent": or_null(real(0, 10)),
    "directions": or_null(whole(1, 16_384)),
    "power": or_null(real(0, 100)),
    "tilt": or_null(real(0, 10)),
}
"""Bounds of what ``settled`` chooses, where it comes from outside."""

Matrix = NDArray[np.float32]

SITTING = 60.0
"""Seconds; tried beside twice the median of the times between a user's events."""
_WIDTHS = (1, 5, 25)
"""Of sittings, by the narrowest."""
_ALIKE = 1.5
"""Widths that differ by a smaller factor are not told apart."""

_FEWEST_DIRECTIONS = 8
_USER_EXPONENTS = (0.3, 0.15)
_ITEM_EXPONENTS = (0.4, 0.2)
"""The first of each is the start of a search, and what is taken where nothing was chosen."""
_POWERS = (0.0, 0.5, 1.0, 2.0)
_TILTS = (0.0, 0.1, 0.2, 0.3)
_TOP, _DEPTH = 10, 100
_MOST_USERS, _AT_A_TIME = 1_000, 250


@dataclass(frozen=True)
class SpectralFilter:
    """How a linear tower is fitted.

    user_exponent, item_exponent: of the numbers of events that the matrix is divided by.
    sitting_weight: of the sittings of each width, beside a user's whole history; without times
    there are none. sitting: seconds of the narrowest ones; others are 5 and 25 times as wide.
    directions: the leading ones that are kept, at most the tower's dim. power: of the singular
    values, by the largest, which the directions weigh by in a score. tilt: exponent of an item's
    number of events, which divide what an event of it tells and multiply its score. None: chosen
    on validation rows, see ``settled``.
    """

    user_exponent: float | None = None
    item_exponent: float | None = None
    sitting_weight: float = 0.5
    sitting: float | None = None
    directions: int | None = None
    power: float | None = None
    tilt: float | None = None

    def fit(self, tower: TwoTower, train: Histories, content: ContentFeatures) -> None:
        """Set the parameters of ``tower``, which must be linear and without a bias.

        Events count by the roots of their weights, so that a pair of one item counts its weight.
        Users' attributes are left to other towers: as columns of the matrix they would take the
        leading directions.

        Raises:
            ValueError: when the tower is not linear.
        """
        if tower.use_bias or not isinstance(tower.query_tower.mlp, torch.nn.Identity):
            raise ValueError("SpectralFilter fits towers with hidden_dim=0 and use_bias=false")
        num_items = len(content.values) - 1
        spectrum = self._spectrum(train, num_items, tower.embedding_dim)
        factors = spectrum.factors(self._settings(spectrum))
        missing = (0, tower.embedding_dim - factors[0].shape[1])
        queries, candidates = (F.pad(torch.from_numpy(part), missing) for part in factors)
        tower.query_tower.items.fix(queries)
        tower.candidate_tower.items.fix(candidates)

    def settled(
        self, remaining: Histories, held_out: Histories, num_items: int, dim: int, seed: int
    ) -> "SpectralFilter":
        """With what was None chosen on validation events, one setting after the other.

        By the geometric mean of NDCG@10 and NDCG@100: other towers find more deep down, and at the
        top this one is the strongest.

        Args:
            dim: of the tower. seed: of the users that are looked at, where there are many.
        """
        users = np.flatnonzero((held_out.lengths > 0) & (remaining.lengths > 0))
        users = np.sort(np.random.default_rng(seed).permutation(users)[:_MOST_USERS])
        if None not in self.settings().values() or not len(users):
            return self
        options: dict[str, Sequence[Any]] = {
            "user_exponent": _USER_EXPONENTS,
            "sitting": self._sittings(remaining),
            "item_exponent": _ITEM_EXPONENTS,
        }
        start = {name: values[0] for name, values in options.items() if getattr(self, name) is None}
        own = replace(self, **start)
        best = own._choice(remaining, held_out, users, dim, num_items)
        # Each takes a decomposition.
        for name in start:
            for value in options[name][1:]:
                trial = replace(own, **{name: value})
                found = trial._choice(remaining, held_out, users, dim, num_items)
                if found.value > best.value:
                    best, own = found, trial
        chosen = best.settled
        log.info(
            "stage 1: linear tower of %d directions, power %g, tilt %g, exponents %g of users and "
            "%g of items, sittings of %g s: mean of validation NDCG@%d and NDCG@%d %.4f",
            *(chosen.directions, chosen.power, chosen.tilt, chosen.user_exponent),
            *(chosen.item_exponent, chosen.sitting, _TOP, _DEPTH, best.value),
        )
        return chosen

    def _sittings(self, train: Histories) -> list[float]:
        """Widths to choose from, in seconds."""
        typical = 2.0 * typical_gap(train)
        is_told = self.sitting_weight > 0 and typical > 0
        ratio = typical / SITTING
        return [SITTING, typical] if is_told and not 1 / _ALIKE < ratio < _ALIKE else [SITTING]

    def _choice(
        self,
        remaining: Histories,
        held_out: Histories,
        users: NDArray[np.int64],
        dim: int,
        num_items: int,
    ) -> "_Choice":
        """The best of what is None but for what the matrix is made by."""
        spectrum = self._spectrum(remaining, num_items, dim)
        validation = _Validation(spectrum, remaining, held_out, users)
        options: dict[str, Sequence[Any]] = {
            "directions": _steps_down(spectrum.most),
            "power": _POWERS,
            "tilt": _TILTS,
            # Which one counts is chosen later, of all towers together: here, what goes with it.
            "half_life": (None, *HALF_LIVES) if remaining.has_order else (None,),
        }
        best = self._settings(spectrum)
        reached = validation(best)
        given = self.settings()
        free = [name for name in options if given.get(name) is None]
        for name in [*free, *free]:
            for value in options[name]:
                trial = best._replace(**{name: value})
                if trial not in validation.known and (value := validation(trial)) > reached:
                    best, reached = trial, value
        own = {name: getattr(best, name) for name in ("directions", "power", "tilt")}
        return _Choice(reached, replace(self, **own))

    def settings(self) -> Mapping[str, Any]:
        """What ``settled`` chooses, as it is written into a manifest."""
        return {name: getattr(self, name) for name in CHOSEN}

    def with_settings(self, settings: object, remedy: str) -> "SpectralFilter":
        """With what a manifest tells of ``settings``.

        Raises:
            InputError: when it is anything else. remedy: for that.
        """
        return replace(self, **checked(settings, CHOSEN, "settled settings", remedy))

    def _settings(self, spectrum: "_Spectrum") -> "_Settings":
        return _Settings(
            spectrum.most if self.directions is None else min(self.directions, spectrum.most),
            0.5 if self.power is None else self.power,
            0.2 if self.tilt is None else self.tilt,
        )

    def _spectrum(self, train: Histories, num_items: int, dim: int) -> "_Spectrum":
        values = np.sqrt(train.relative_weights)
        whole = _entries(train, values, train.user_idx, num_items)
        counts = np.maximum(np.asarray(whole.sum(axis=0)).ravel(), 1.0)
        parts = [self._by_row(whole)]
        if self.sitting_weight and train.has_order:
            rng = np.random.default_rng(0)
            narrowest = SITTING if self.sitting is None else self.sitting
            for width in _WIDTHS:
                rows = sittings(train, max(round(width * narrowest), 1), rng)
                within = _entries(train, values, rows, num_items)
                within = within[np.diff(within.indptr) > 1]  # one event alone tells of no pair
                parts.append(self._by_row(within) * np.sqrt(self.sitting_weight))
        exponent = _ITEM_EXPONENTS[0] if self.item_exponent is None else self.item_exponent
        matrix = vstack(parts) @ diags(counts**-exponent)
        found = leading_directions(matrix.tocsr().astype(np.float32), dim)
        return _Spectrum(*found, counts.astype(np.float32))

    def _by_row(self, matrix: csr_matrix) -> csr_matrix:
        exponent = _USER_EXPONENTS[0] if self.user_exponent is None else self.user_exponent
        lengths = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)
        return diags(lengths**-exponent) @ matrix


def _entries(
    train: Histories, values: Matrix, rows: NDArray[np.int64], num_items: int
) -> csr_matrix:
    """What the events in each place are worth: float32 [rows, N + 1]; where all weigh alike, 1."""
    shape = (int(rows.max(initial=0)) + 1, num_items + 1)
    matrix = csr_matrix((values, (rows, train.item_idx)), shape=shape)
    if train.are_alike:
        matrix.data[:] = 1.0
    return matrix


class _Settings(NamedTuple):
    """half_life: of events in queries, in events; None: order does not count."""

    directions: int
    power: float
    tilt: float
    half_life: float | None = None


class _Choice(NamedTuple):
    """value: see ``_Validation``. settled: the filter with what was chosen."""

    value: float
    settled: SpectralFilter


class _Spectrum(NamedTuple):
    """values: float32 [k], falling, above 0. vectors: float32 [N + 1, k]. counts: float32
    [N + 1], of events, at least 1.
    """

    values: Matrix
    vectors: Matrix
    counts: Matrix

    @property
    def most(self) -> int:
        return len(self.values)

    def factors(self, settings: _Settings) -> tuple[Matrix, Matrix]:
        """Query and candidate vectors, float32 [N + 1, directions] each."""
        vectors = self.vectors[:, : settings.directions]
        values = self.values[: settings.directions]
        by_count = (self.counts**settings.tilt)[:, None]
        weights = (values / values[:1]) ** settings.power
        return vectors * weights / by_count, vectors * by_count


def _steps_down(most: int) -> list[int]:
    """``most``, three quarters of it, half of it, and so on by turns."""
    halves = [most >> n for n in range(16)]
    steps = [step for half in halves for step in (half, half * 3 // 4)]
    return [step for step in steps if step >= min(_FEWEST_DIRECTIONS, most)]


class _Validation:
    """How settings rank held-out events of users [V]: the geometric mean of NDCG@10 and NDCG@100.

    known: the settings that were tried.
    """

    def __init__(
        self,
        spectrum: _Spectrum,
        remaining: Histories,
        held_out: Histories,
        users: NDArray[np.int64],
    ) -> None:
        self.spectrum = spectrum
        self.users = users
        self.remaining = remaining.select(np.isin(remaining.user_idx, users))
        self.held_out = held_out
        self.num_items = len(spectrum.counts) - 1
        self.known: set[_Settings] = set()

    def __call__(self, settings: _Settings) -> float:
        self.known.add(settings)
        queries, candidates = self.spectrum.factors(settings)
        histories = self._histories(settings.half_life)
        catalogue = torch.from_numpy(candidates).T.contiguous()
        found: list[Tensor] = []
        for start in range(0, len(self.users), _AT_A_TIME):
            some = slice(start, start + _AT_A_TIME)
            history = self.remaining.pad(self.users[some])
            wanted = self.held_out.pad(self.users[some])
            scores = torch.from_numpy(histories[some] @ queries) @ catalogue
            scores = scores.scatter(1, history.item_idx, -torch.inf)
            scores[:, 0] = -torch.inf
            ranked = scores.topk(min(_DEPTH, self.num_items), dim=1).indices
            rows, places = wanted.mask.nonzero(as_tuple=True)
            hits = hit_matrix(ranked, rows, wanted.item_idx[rows, places], self.num_items)
            number = wanted.mask.sum(dim=1)
            found.append(torch.stack([ndcg_at_k(hits, number, k) for k in (_TOP, _DEPTH)]))
        top, deep = torch.cat(found, dim=1).mean(dim=1)
        return float((top * deep).sqrt())

    def _histories(self, half_life: float | None) -> csr_matrix:
        """What the users' events count in queries: float32 [V, N + 1]."""
        if half_life is None:
            return self.remaining.matrix(self.num_items)[self.users]
        counts = np.exp2(self.remaining.ranks_from_end / -half_life).astype(np.float32)
        return self.remaining.matrix_of(counts, self.num_items)[self.users]
