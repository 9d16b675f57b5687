"""Features of now, for serving: the training log, and what has come in since."""

import math
import threading
import time
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.data.histories import Histories, end_of_log
from recsys.feature_store.definitions import (
    HALF_LIFE_DAYS,
    ITEM_FEATURES,
    USER_FEATURES,
    computed,
    decay,
)
from recsys.feature_store.grouped import GroupedEvents

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class OnlineFeatures:
    """Features of items, kept up to date, and of users, whose events come with the question.

    Args:
        log: the training events, of items 1..num_items. half_life_days: of an event in
            ``decayed_popularity``; None counts all alike.

    Methods are safe to call from several threads.
    """

    def __init__(
        self, log: Histories, num_items: int, half_life_days: float | None = HALF_LIFE_DAYS
    ) -> None:
        self._log = log
        self._half_life = half_life_days
        self._items = GroupedEvents.from_arrays(
            log.item_idx, log.timestamps, log.ratings, num_items + 1
        )
        self.end_of_log = end_of_log(log)
        # Decayed events of all items as of the latest one, kept up to date. A clock that is years
        # ahead must not have all else fade at once.
        self._latest = self.end_of_log
        ages = np.maximum(self._latest - log.timestamps, 0)
        self._decayed: Floats = np.bincount(
            log.item_idx, log.weights * decay(ages, half_life_days), minlength=num_items + 1
        ).astype(np.float64)
        # By item, in 16 bytes an event.
        self._later: dict[int, tuple[array[int], array[float]]] = {}
        self._lock = threading.Lock()

    def add(
        self, item_idx: Ints, times: Ints, values: Floats, weights: Floats | None = None
    ) -> None:
        """Events [n] that have come in since the log.

        Args:
            values: NaN for none. weights: how much each counts in ``decayed_popularity``, on the
                scale of the log's; None: 1 each.
        """
        with self._lock:
            for item, at, value in zip(
                item_idx.tolist(), times.tolist(), values.tolist(), strict=True
            ):
                own_times, own_values = self._later.setdefault(item, (array("q"), array("d")))
                own_times.append(at)
                own_values.append(value)
            self._grow(int(item_idx.max(initial=0)))
            times = np.minimum(times, int(time.time()))
            latest = max(self._latest, int(times.max(initial=0)))
            self._decayed *= decay(latest - self._latest, self._half_life)
            self._latest = latest
            counted = decay(latest - times, self._half_life)
            np.add.at(self._decayed, item_idx, counted if weights is None else weights * counted)

    def user(self, user: int, times: Ints, values: Floats, as_of: int) -> dict[str, float]:
        """A user's features, by name.

        Args:
            user: of the training log; 0 for one that it does not have. times, values: of the user's
                events since, [n], which come with the history in one read. as_of: unix seconds.
        """
        own = slice(self._log.offsets[user], self._log.offsets[user + 1])
        grouped = GroupedEvents.of_one(
            np.concatenate([self._log.timestamps[own], times]),
            np.concatenate([self._log.ratings[own], values]),
        )
        found = computed(USER_FEATURES, grouped, np.zeros(1, np.int64), np.array([as_of]))
        return {name: float(value[0]) for name, value in found.items()}

    def items(self, item_idx: Sequence[int], as_of: int) -> dict[str, Floats]:
        """Features of items [n], by name: float64 [n].

        Args:
            as_of: unix seconds.
        """
        parts = [self._events_of(item) for item in item_idx]
        entity = np.repeat(np.arange(len(parts)), [len(times) for times, _ in parts])
        grouped = GroupedEvents.from_arrays(
            entity,
            np.concatenate([np.zeros(0, np.int64), *(times for times, _ in parts)]),
            np.concatenate([np.zeros(0), *(values for _, values in parts)]),
            len(parts),
        )
        as_of_each = np.full(len(parts), as_of)
        return computed(ITEM_FEATURES, grouped, np.arange(len(parts)), as_of_each)

    def _events_of(self, item: int) -> tuple[Ints, Floats]:
        with self._lock:
            later = self._later.get(item, ((), ()))
            times, values = np.array(later[0], np.int64), np.array(later[1], np.float64)
        if item + 1 < len(self._items.offsets):
            own = slice(self._items.offsets[item], self._items.offsets[item + 1])
            times = np.concatenate([self._items.times[own], times])
            values = np.concatenate([self._items.values[own], values])
        return times, values

    def in_log_before(self, item_idx: Ints, time: float) -> NDArray[np.bool_]:
        """Which items [n] the training log has events of from before a time (unix seconds)."""
        found = np.zeros(len(item_idx), bool)
        known = item_idx + 1 < len(self._items.offsets)
        items = item_idx[known]
        first = self._items.position(items, np.full(len(items), math.ceil(time)))
        found[known] = first > self._items.offsets[items]
        return found

    def grow(self, num_items: int) -> None:
        """There are more items now, without events so far."""
        with self._lock:
            self._grow(num_items)

    def _grow(self, num_items: int) -> None:
        missing = num_items + 1 - len(self._decayed)
        if missing > 0:
            self._decayed = np.pad(self._decayed, (0, missing))

    def decayed_popularity(self) -> Floats:
        """Events of all items, decayed as of the latest one: float64 [num_items + 1].

        In the time of what has come in since training, not of the log.
        """
        with self._lock:
            return self._decayed.copy()
