"""How much an interaction counts: its own weight times the weight of its type.

A (user, item) pair that repeats counts as much as its rows together, but not without end: one who
opens a page a hundred times does not want it a hundred times as much. With a half-life, rows fade:
those of a pair to the time of its latest row when they are merged, and pairs to the end of the
training rows (see ``recsys.data.prepare``).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.schema import ITEM_ID, TIMESTAMP, TYPE, USER_ID, WEIGHT

MIN_WEIGHT, MAX_WEIGHT = 1e-6, 1e6
"""Of a row, and of a type: sums of such weights keep their digits."""
WEIGHT_RULE = f"a number above 0 (from {MIN_WEIGHT:g} to {MAX_WEIGHT:g})"
MAX_REPEATS = 10.0
"""A pair counts at most as much as so many of its strongest row."""

MIN_FADED = 1e-6
"""No row fades further."""
_SECONDS_PER_DAY = 86_400

Floats = NDArray[np.float64]


def checked_event_weights(weights: Mapping[str, float] | None) -> dict[str, float] | None:
    """The weights by type as plain floats; None stays None.

    Raises:
        InputError: when they are no mapping of names to numbers above 0.
    """
    if weights is None:
        return None
    expected = f"data.event_weights to map each type to {WEIGHT_RULE}"
    remedy = "write e.g. data.event_weights={view: 1, cart: 3, purchase: 10}"
    if not isinstance(weights, Mapping) or not weights:
        raise InputError(expected, repr(weights), remedy)
    checked: dict[str, float] = {}
    for name, weight in weights.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not str(name).strip() or not is_number or not MIN_WEIGHT <= weight <= MAX_WEIGHT:
            raise InputError(expected, f"{name}: {weight!r}", remedy)
        checked[str(name)] = float(weight)
    return checked


def checked_half_life(days: float | None) -> float | None:
    """Raise InputError unless it is a number of days above 0, or none."""
    is_number = isinstance(days, int | float) and not isinstance(days, bool)
    if days is None or (is_number and 0 < days < np.inf):
        return days
    remedy = "set e.g. data.half_life_days=90, or null"
    raise InputError("data.half_life_days to be a number above 0", repr(days), remedy)


def faded(seconds: NDArray[np.int64], half_life_days: float) -> Floats:
    """What rows of these ages [N] still count, halved every half-life; of no age: 1."""
    ages = np.maximum(seconds, 0) / (_SECONDS_PER_DAY * half_life_days)
    return np.maximum(0.5**ages, MIN_FADED)


def strongest_type(weights: Mapping[str, float] | None) -> str | None:
    """The type that counts most; None where no type counts more than another."""
    if weights is None or len(set(weights.values())) < 2:
        return None
    return max(weights, key=lambda name: weights[name])


def row_strengths(
    events: pd.DataFrame,
    event_weights: Mapping[str, float] | None,
    source: str,
    *,
    count_all: bool = False,
) -> Floats | None:
    """What each row counts [N]; None where neither weights nor types tell.

    Args:
        count_all: whether each row counts 1 then. source: where the rows come from, for error
            messages.

    Raises:
        InputError: when types are to be weighed and there are none, or one has no weight.
    """
    if event_weights is None:
        if WEIGHT in events:
            return events[WEIGHT].to_numpy(np.float64)
        return np.ones(len(events)) if count_all else None
    if TYPE not in events:
        raise InputError(
            f"a column 'type' in {source}, for data.event_weights",
            "none",
            "map data.columns.interactions.type, or leave out data.event_weights",
        )
    types = events[TYPE]
    by_type = types.map({**event_weights, "": 1.0})
    lacking = by_type.isna()
    if lacking.any():
        counts = types[lacking].value_counts()
        found = ", ".join(f"{name!r} ({number:,} rows)" for name, number in counts.head(5).items())
        raise InputError(
            f"a weight in data.event_weights for each type of {source}",
            f"none for {found}" + " and others" * (len(counts) > 5),
            "add them, or leave such rows out by data.positive",
        )
    strengths = by_type * events[WEIGHT] if WEIGHT in events else by_type
    return np.asarray(strengths, np.float64)


def with_pair_strengths(
    events: pd.DataFrame,
    in_time: NDArray[np.int64],
    strengths: Floats,
    by_type: Floats | None = None,
    half_life_days: float | None = None,
) -> pd.DataFrame:
    """Rows that count, each, what all rows of their user and item do, of the strongest one's type.

    Args:
        events: with a RangeIndex. in_time: int64 [N], row numbers from the earliest on.
        strengths: [N], of the rows as they stand. by_type: [N], by which the strongest row is told
            whose type counts; None: by ``strengths``. half_life_days: by which rows fade, each to
            the time of its pair's latest one; None: not at all.

    Returns:
        ``events`` with ``weight``, and ``type`` where it has one, set.
    """
    if not len(events):
        return events.assign(**{WEIGHT: strengths})
    pair = events.groupby([USER_ID, ITEM_ID], sort=False).ngroup().to_numpy(np.int64)
    # Rows of a pair together, the strongest of them, and of equal ones the latest, at the end.
    place = np.empty(len(events), np.int64)
    place[in_time] = np.arange(len(events))
    order = np.lexsort((place, strengths if by_type is None else by_type, pair))
    ends = np.flatnonzero(np.diff(pair[order], append=-1))
    last, starts = order[ends], np.append(0, ends[:-1] + 1)
    if half_life_days is not None:
        times = events[TIMESTAMP].to_numpy(np.int64)
        latest = np.maximum.reduceat(times[order], starts)
        strengths = strengths * faded(latest[pair] - times, half_life_days)
    strongest = np.maximum.reduceat(strengths[order], starts)
    counted = np.minimum(np.bincount(pair, strengths), MAX_REPEATS * strongest)
    merged = events.assign(**{WEIGHT: counted[pair]})
    return (
        merged.assign(**{TYPE: events[TYPE].to_numpy()[last][pair]}) if TYPE in events else merged
    )


@dataclass(frozen=True)
class Counting:
    """What rows count; see ``recsys.data.files.load``."""

    event_weights: Mapping[str, float] | None
    count_repeats: bool
    half_life_days: float | None

    def pairs(self, events: pd.DataFrame, in_time: NDArray[np.int64], origin: str) -> pd.DataFrame:
        """Rows that count, each, what all of their pair do; as they are where nothing tells."""
        half_life = self.half_life_days
        if half_life is not None and TIMESTAMP not in events:
            raise InputError(
                f"times of interactions in {origin}, for data.half_life_days={half_life:g}",
                "no column of them",
                "set data.columns.interactions.timestamp, or leave out data.half_life_days",
            )
        count_all = self.count_repeats or half_life is not None
        strengths = row_strengths(events, self.event_weights, origin, count_all=count_all)
        if strengths is None:
            return events
        return with_pair_strengths(events, in_time, strengths, half_life_days=half_life)
