"""Events by user or by item, in time order: what features are computed from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GroupedEvents:
    """The events of E entities, flat: entity ``e`` owns ``[offsets[e], offsets[e + 1])``.

    offsets: int64 [E + 1]. times: int64 [N], unix seconds, ascending within an entity. values:
    float64 [N], e.g. ratings; NaN where an event has none.
    """

    offsets: Ints
    times: Ints
    values: Floats

    @classmethod
    def from_arrays(
        cls, entity: Ints, times: Ints, values: Floats | None, num_entities: int
    ) -> "GroupedEvents":
        """From events [N] in any order, of entities 0..num_entities - 1; values None has none."""
        if values is None:
            values = np.full(len(entity), np.nan)
        order = np.lexsort((times, entity))
        counts = np.bincount(entity, minlength=num_entities)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(offsets, times[order].astype(np.int64), values[order].astype(np.float64))

    @classmethod
    def of_one(cls, times: Ints, values: Floats) -> "GroupedEvents":
        """Of one entity, number 0."""
        return cls.from_arrays(np.zeros(len(times), np.int64), times, values, 1)

    def position(self, entity: Ints, time: Ints) -> Ints:
        """int64 [n]: of each entity's events, the first that is not before the time.

        A position among all events; by bisection of all rows at once, in as many steps as the
        longest history needs.
        """
        low, high = self.offsets[entity].copy(), self.offsets[entity + 1].copy()
        longest = int(np.diff(self.offsets).max(initial=0))
        for _ in range(longest.bit_length()):
            searching = low < high
            middle = (low + high) // 2
            before = searching & (
                self.times[np.minimum(middle, max(len(self.times) - 1, 0))] < time
                if len(self.times)
                else False
            )
            low = np.where(before, middle + 1, low)
            high = np.where(searching & ~before, middle, high)
        return low
