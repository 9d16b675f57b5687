"""The features, each one a function of the events before a time; the same offline and online.

An event at the very time does not count: a training row never sees itself, nor what comes later.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.feature_store.grouped import GroupedEvents

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

Compute = Callable[[GroupedEvents, Ints, Ints], Floats]
"""(events, entity int64 [n], as_of int64 [n], unix seconds) -> float64 [n]."""

SECONDS_PER_DAY = 86_400
HALF_LIFE_DAYS = 14.0
"""After so long an event counts half in ``decayed_events`` (chosen on validation rows of
MovieLens-100K, split in time)."""


@dataclass(frozen=True)
class Feature:
    """One feature; the values that there is no basis for are NaN."""

    name: str
    unit: str
    description: str
    compute: Compute


def num_events(events: GroupedEvents, entity: Ints, as_of: Ints) -> Floats:
    """How many events."""
    return (events.position(entity, as_of) - events.offsets[entity]).astype(np.float64)


def num_events_within(days: int, events: GroupedEvents, entity: Ints, as_of: Ints) -> Floats:
    """How many events in the last days."""
    end = events.position(entity, as_of)
    start = events.position(entity, as_of - days * SECONDS_PER_DAY)
    return (end - start).astype(np.float64)


def days_since_last(events: GroupedEvents, entity: Ints, as_of: Ints) -> Floats:
    """Days since the latest event."""
    return _days_since(events, entity, as_of, events.position(entity, as_of) - 1)


def days_since_first(events: GroupedEvents, entity: Ints, as_of: Ints) -> Floats:
    """Days since the first event."""
    return _days_since(events, entity, as_of, events.offsets[entity])


def _days_since(events: GroupedEvents, entity: Ints, as_of: Ints, position: Ints) -> Floats:
    found = np.full(len(entity), np.nan)
    known = events.position(entity, as_of) > events.offsets[entity]
    found[known] = (as_of[known] - events.times[position[known]]) / SECONDS_PER_DAY
    return found


def mean_value(events: GroupedEvents, entity: Ints, as_of: Ints) -> Floats:
    """Mean of the values, of the events that have one."""
    has_value = ~np.isnan(events.values)
    total = _sums(events, np.where(has_value, events.values, 0.0), entity, as_of)
    number = _sums(events, has_value.astype(np.float64), entity, as_of)
    found = np.full(len(entity), np.nan)
    np.divide(total, number, out=found, where=number > 0)
    return found


def decayed_events(
    half_life_days: float, events: GroupedEvents, entity: Ints, as_of: Ints
) -> Floats:
    """Events, each counted by 0.5 ** (age / half-life)."""
    start, end = events.offsets[entity], events.position(entity, as_of)
    rows, positions = _ranges(start, end)
    weights = decay(as_of[rows] - events.times[positions], half_life_days)
    return np.bincount(rows, weights, minlength=len(entity)).astype(np.float64)


def decay(seconds: Any, half_life_days: float | None) -> Any:
    """What events of this age, a number or an array, still count: halved every half-life.

    None halves nothing.
    """
    ages = np.asarray(seconds) / SECONDS_PER_DAY
    return np.ones_like(ages) if half_life_days is None else 0.5 ** (ages / half_life_days)


def _sums(events: GroupedEvents, values: Floats, entity: Ints, as_of: Ints) -> Floats:
    """Of each entity's values before the time: float64 [n], added up event by event.

    Not by differences of one running sum, which would carry others' rounding into an entity's.
    """
    start, end = events.offsets[entity], events.position(entity, as_of)
    rows, positions = _ranges(start, end)
    return np.bincount(rows, values[positions], minlength=len(entity)).astype(np.float64)


def _ranges(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """All positions of [start, end) of n rows, one after the other, and the row of each."""
    lengths = end - start
    rows = np.repeat(np.arange(len(start)), lengths)
    first = np.repeat(start - (np.cumsum(lengths) - lengths), lengths)
    return rows, first + np.arange(len(rows))


def _common(of: str) -> list[Feature]:
    return [
        Feature("num_events", "events", f"events of the {of}", num_events),
        *[
            Feature(
                f"num_events_{days}d",
                "events",
                f"events of the {of} in the last {days} day{'s' * (days > 1)}",
                partial(num_events_within, days),
            )
            for days in (1, 7, 30)
        ],
        Feature("days_since_last", "days", f"since the {of}'s latest event", days_since_last),
        Feature("days_since_first", "days", f"since the {of}'s first event", days_since_first),
        Feature("mean_value", "value", f"mean value (rating) of the {of}'s events", mean_value),
    ]


USER_FEATURES: Sequence[Feature] = _common("user")
ITEM_FEATURES: Sequence[Feature] = [
    *_common("item"),
    Feature(
        "decayed_events",
        "events",
        f"events of the item, each halved every {HALF_LIFE_DAYS:g} days",
        partial(decayed_events, HALF_LIFE_DAYS),
    ),
]


def computed(
    features: Sequence[Feature], events: GroupedEvents, entity: Ints, as_of: Ints
) -> dict[str, Floats]:
    """All features of entities int64 [n] as of times int64 [n], by name."""
    return {one.name: one.compute(events, entity, as_of) for one in features}
