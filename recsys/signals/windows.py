"""How popular items were at a moment: events before it, those of long ago counting less."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.core.sorted_keys import SortedKeys
from recsys.data.histories import Histories

_SECONDS_PER_DAY = 86_400
_MAX_EXPONENT = 10.0


class RecentPopularity:
    """Exponentially decayed counts of events before a moment, per item and of all items.

    One-sided: nothing that comes after the moment counts. A count is one binary search, however
    many time scales there are, since each event stores the decayed counts up to itself.

    An event counts by its weight, 1 on average.

    Args:
        histories: the events. num_items: items are 1..num_items. days: the time constants.
    """

    def __init__(self, histories: Histories, num_items: int, days: Sequence[float]) -> None:
        self.seconds = np.array(days) * _SECONDS_PER_DAY
        times = histories.timestamps
        self.origin = int(times.min()) if len(times) else 0
        # A moment is at most this far from the first event; items lie further apart in the keys.
        self.span = int(times.max()) - self.origin + 1 if len(times) else 1
        shifted, weights = times - self.origin, histories.relative_weights
        by_time = np.argsort(shifted, kind="stable")
        self._all = _DecayedCounts(
            np.zeros(len(times), np.int64), shifted[by_time], weights[by_time], self.seconds
        )
        self._stride = self.span + 1
        order = np.lexsort((shifted, histories.item_idx))
        self._items = _DecayedCounts(
            histories.item_idx[order], shifted[order], weights[order], self.seconds
        )
        self._keys = SortedKeys(self._items.groups * self._stride + self._items.times)
        self._share = (histories.item_strengths(num_items) / max(len(times), 1)).astype(np.float32)

    def __call__(self, items: NDArray[np.int64], now: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts, and how they compare to what the items' total shares lead to expect.

        Args:
            items: int64 [B, K]. now: int64 [B], unix seconds; events at that second do not count.

        Returns:
            log(1 + count) by time constant, then log((count + 1) / (expected + 1)): float32
            [B, K, 2 T].
        """
        moment = np.clip(now - self.origin, 0, self.span)
        keys = items * self._stride + moment[:, None]
        # The latest event before the moment is the one before the first at it or later.
        counts = self._items.at(self._keys.number_below(keys) - 1, items, moment[:, None])
        place = np.searchsorted(self._all.times, moment) - 1
        total = self._all.at(place, np.zeros_like(place), moment)
        expected = total[:, None, :] * self._share[items][:, :, None]
        counts += 1.0
        expected += 1.0
        both: NDArray[np.float32] = np.concatenate([counts, counts / expected], axis=2)
        np.log(both, out=both)
        return both


class _DecayedCounts:
    """For each event of a group, the decayed count of the group's events up to it, itself included.

    Args:
        groups, times: int64 [N], sorted by both. weights: [N], of the events. seconds: float [T],
            time constants.
    """

    def __init__(
        self,
        groups: NDArray[np.int64],
        times: NDArray[np.int64],
        weights: NDArray[np.float32],
        seconds: NDArray[np.float64],
    ) -> None:
        self.groups, self.times = groups, times
        self.rates = (1.0 / seconds).astype(np.float32)
        counts = [_accumulated(groups, times, weights, one) for one in seconds]
        self.counts = np.stack(counts, axis=-1).astype(np.float32)

    def at(
        self, place: NDArray[np.int64], groups: NDArray[np.int64], moment: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Counts [..., T] at a moment of the groups, whose latest event before it is at a place.

        Groups of which there is none before it have another's event there, or -1.
        """
        if not len(self.times):
            return np.zeros((*place.shape, len(self.rates)), np.float32)
        found = (place >= 0) & (self.groups[place] == groups)
        age = ((moment - self.times[place]) * found).astype(np.float32)
        decay = age[..., None] * -self.rates
        np.exp(decay, out=decay)
        # Not by an index, which copies rows number by number.
        counts: NDArray[np.float32] = self.counts.take(place, axis=0)
        counts *= decay
        counts *= found[..., None]
        return counts


def _accumulated(
    groups: NDArray[np.int64],
    times: NDArray[np.int64],
    weights: NDArray[np.float32],
    seconds: float,
) -> NDArray[np.float64]:
    """Weights times exp(-age / seconds), added up over a group's events up to each one, itself
    included.

    Within a stretch of few time constants that is one cumulative sum of exp(time / seconds), which
    neither overflows nor loses digits there; stretches are then carried over, a group's next ones
    at a time.
    """
    if not len(times):
        return np.zeros(0)
    stretch = (times / (seconds * _MAX_EXPONENT)).astype(np.int64)
    is_first = np.r_[True, (groups[1:] != groups[:-1]) | (stretch[1:] != stretch[:-1])]
    starts = np.flatnonzero(is_first)
    ends = np.r_[starts[1:], len(times)]
    segment = np.cumsum(is_first) - 1
    growth = np.exp((times - times[starts][segment]) / seconds)
    weight = weights * growth
    total = np.cumsum(weight)
    local = (total - (total - weight)[starts][segment]) / growth
    # What a segment's first event finds left of the same group's earlier segments.
    left = np.zeros(len(starts))
    own = groups[starts]
    rank = np.arange(len(starts)) - np.searchsorted(own, own)
    age = (times[starts[1:]] - times[ends[:-1] - 1]) / seconds
    held = (times[ends - 1] - times[starts]) / seconds
    for number in range(1, int(rank.max()) + 1):
        here = np.flatnonzero(rank == number)
        before = local[ends[here - 1] - 1] + left[here - 1] * np.exp(-held[here - 1])
        left[here] = before * np.exp(-age[here - 1])
    counts: NDArray[np.float64] = local + left[segment] / growth
    return counts
