"""Settings of baselines, chosen on validation events: a lead over untuned ones would be none."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.baselines import (
    Baseline,
    FitBaseline,
    TooManyItemsError,
    fit_all,
    fit_als,
    fit_ease,
    rank,
)
from recsys.core.coordinate_search import Space, climb
from recsys.data.histories import Histories
from recsys.errors import InputError
from recsys.item_neighbours import fit_item_neighbours
from recsys.metrics import hit_matrix, ndcg_at_k
from recsys.recent_popularity import fit_recent_popularity

log = logging.getLogger(__name__)

METRIC = "ndcg@10"
_K = 10
MAX_TRIALS = 24
"""Fits of each baseline at the most."""
_MAX_USERS = 2_000
_FOREVER = None

SPACES: Mapping[Callable[..., Any], Space] = {
    fit_recent_popularity: {
        "half_life": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, _FOREVER],
        "by_user": [False, True],
    },
    fit_als: {
        "regularization": [0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0],
        "alpha": [0.3, 1.0, 3.0, 10.0, 30.0],
        "factors": [8, 16, 32, 64, 128],
    },
    fit_ease: {
        "regularization": [5.0, 12.0, 25.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0]
    },
    fit_item_neighbours: {
        "exponent": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
        "half_life": [1.0, 2.0, 4.0, 8.0, 16.0, _FOREVER],
        "time_scale": [100.0, 3600.0, 86_400.0, 2_592_000.0, _FOREVER],
        "neighbours": [25, 50, 100, 200, 400, 1000],
        "shrinkage": [0.0, 1.0, 5.0, 20.0, 100.0, 500.0],
    },
}
_OF_TIME = ("half_life", "time_scale", "by_user")
"""Settings that say nothing where all events have one time: ``None`` or ``False`` instead."""


@dataclass(frozen=True)
class Chosen:
    """fit: the baseline with the settings that were best. value: METRIC on validation events.

    trials: fits that it took. seconds: of all of them.
    """

    fit: FitBaseline
    settings: Mapping[str, Any]
    value: float
    trials: int
    seconds: float


def tune(
    fits: Mapping[str, FitBaseline],
    remaining: Histories,
    held_out: Histories,
    num_items: int,
    max_trials: int = MAX_TRIALS,
) -> dict[str, Chosen]:
    """Choose the settings of each baseline that rank ``held_out`` best, given ``remaining``.

    One without a space is fitted and measured as it is; one too costly for the catalogue is logged
    and left out. At most 2,000 users are ranked, the same for all.

    Raises:
        InputError: when nothing is held out to choose by.
    """
    if not len(held_out):
        raise InputError(
            "validation rows to choose the settings of baselines by",
            "none: no user has both training rows and later ones",
            "leave them as they are, or hold out more with data.test_fraction",
        )
    users = np.flatnonzero(held_out.lengths)
    users = np.sort(np.random.default_rng(0).permutation(users)[:_MAX_USERS])
    has_times = len(remaining) > 0 and bool(np.ptp(remaining.timestamps) > 0)
    chosen = {}
    for name, fit in fits.items():
        started = time.perf_counter()
        space = space_of(fit, has_times)
        try:
            settings, value, trials = climb(
                partial(_value, fit, remaining, held_out, users, num_items),
                space,
                _start(fit, space),
                max_trials,
            )
        except TooManyItemsError as error:
            log.warning("baseline %s left out: %s", name, error)
            continue
        seconds = time.perf_counter() - started
        text = ", ".join(f"{key} {value}" for key, value in settings.items()) or "no settings"
        log.info(
            "baseline %s: %s (validation %s %.4f, %d trials, %.0f s)",
            *(name, text, METRIC, value, trials, seconds),
        )
        chosen[name] = Chosen(partial(fit, **settings), settings, value, trials, seconds)
    return chosen


def fit_tuned(
    fits: Mapping[str, FitBaseline],
    hold_out: Callable[[Histories], tuple[Histories, Histories]],
    train: Histories,
    num_items: int,
) -> dict[str, Baseline]:
    """As ``fit_all``, with settings chosen on events that ``hold_out`` takes out of ``train``.

    Where that takes none out, a warning says that the settings are as configured: this comes after
    a training, whose result is not to be lost.
    """
    remaining, held_out = hold_out(train)
    if not len(held_out):
        log.warning("no validation rows to tune baselines on: their settings are as configured")
        return fit_all(fits, train, num_items)
    chosen = tune(fits, remaining, held_out, num_items)
    return fit_all({name: one.fit for name, one in chosen.items()}, train, num_items)


def space_of(fit: FitBaseline, has_times: bool) -> Space:
    """The space of a baseline, or of a partial of it; without times only what they don't tell."""
    space = SPACES.get(fit.func if isinstance(fit, partial) else fit, {})
    if has_times:
        return space
    timeless: dict[str, Sequence[Any]] = {
        "half_life": [_FOREVER],
        "time_scale": [_FOREVER],
        "by_user": [False],
    }
    return {key: timeless.get(key, values) for key, values in space.items()}


def _start(fit: FitBaseline, space: Space) -> dict[str, Any]:
    """The configured settings, or of a setting whose own value is not in the space, the middle."""
    configured = fit.keywords if isinstance(fit, partial) else {}
    return {
        key: configured[key] if configured.get(key) in values else values[len(values) // 2]
        for key, values in space.items()
    }


def _value(
    fit: Callable[..., Baseline],
    remaining: Histories,
    held_out: Histories,
    users: NDArray[np.int64],
    num_items: int,
    settings: Mapping[str, Any],
) -> float:
    ranked = rank(fit(remaining, num_items, **settings), remaining, users, _K)
    of_user = held_out.user_idx
    known = np.isin(of_user, users)
    hits = hit_matrix(
        torch.from_numpy(ranked),
        torch.from_numpy(np.searchsorted(users, of_user[known])),
        torch.from_numpy(held_out.item_idx[known]),
        num_items,
    )
    relevant = torch.from_numpy(held_out.lengths[users])
    return float(ndcg_at_k(hits, relevant, _K).mean())
