"""How popular items were at a moment: events before it, those of long ago counting less."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.data.histories import Histories

_SECONDS_PER_DAY = 86_400
_MAX_EXPONENT = 10.0
_MOST_INT32 = 2**31 - 1


class RecentPopularity:
    """Exponentially decayed counts of events before a moment, per item and of all items.

    One-sided: nothing that comes after the moment counts. A count is one binary search among the
    item's events, however many time scales there are, since each event stores the decayed counts
    up to itself.

    An event counts by its weight, 1 on average.

    Args:
        histories: the events. num_items: items are 1..num_items. days: the time constants.
    """

    def __init__(self, histories: Histories, num_items: int, days: Sequence[float]) -> None:
        self.seconds = np.array(days) * _SECONDS_PER_DAY
        times = histories.timestamps
        self.origin = int(times.min()) if len(times) else 0
        self.span = int(times.max()) - self.origin + 1 if len(times) else 1
        shifted, weights = times - self.origin, histories.relative_weights
        by_time = np.argsort(shifted, kind="stable")
        everything = np.zeros(len(times), np.int64)
        self._all = _DecayedCounts(everything, 1, shifted[by_time], weights[by_time], self.seconds)
        order = np.lexsort((shifted, histories.item_idx))
        self._items = _DecayedCounts(
            histories.item_idx[order], num_items + 1, shifted[order], weights[order], self.seconds
        )
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
        num_scales = len(self.seconds)
        # Time constants come first until the end: loops over a few numbers are slow.
        both = np.empty((2 * num_scales, *items.shape), np.float32)
        counts, ratios = both[:num_scales], both[num_scales:]
        np.add(self._items.before(items, moment[:, None]), 1.0, out=counts)
        total = self._all.before(np.zeros_like(moment), moment)
        np.multiply(total[:, :, None], self._share.take(items), out=ratios)
        ratios += 1.0
        np.divide(counts, ratios, out=ratios)
        np.log(both, out=both)
        return np.ascontiguousarray(np.moveaxis(both, 0, -1))


class _DecayedCounts:
    """For each event of a group, the decayed count of the group's events up to it, itself included.

    Args:
        groups: int64 [N], from 0 up to ``num_groups``, and times: int64 [N], sorted by both.
        weights: [N], of the events. seconds: float [T], time constants.
    """

    def __init__(
        self,
        groups: NDArray[np.int64],
        num_groups: int,
        times: NDArray[np.int64],
        weights: NDArray[np.float32],
        seconds: NDArray[np.float64],
    ) -> None:
        self._bounds = np.searchsorted(groups, np.arange(num_groups + 1))
        # Half as much to read, where the numbers are small enough.
        self._times = times.astype(np.int32) if times.max(initial=0) < _MOST_INT32 else times
        self._rates = (1.0 / seconds).astype(np.float32)
        counts = [_accumulated(groups, times, weights, one) for one in seconds]
        self._counts = np.stack(counts, axis=-1).astype(np.float32)

    def before(self, groups: NDArray[np.int64], moments: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts [T, ...] of groups [...] at moments, of events before these alone."""
        if not len(self._times):
            return np.zeros((len(self._rates), *groups.shape), np.float32)
        # The events' times would be converted at each comparison with moments of another type.
        moments = moments.astype(self._times.dtype)
        # Here and below not by an index, which copies number by number.
        starts, ends = self._bounds.take(groups), self._bounds.take(groups + 1)
        end = self._end(starts, ends, moments)
        # Where there is none, another group's event.
        found, place = end > starts, end - 1
        age = ((moments - self._times.take(place)) * found).astype(np.float32)
        counts = np.multiply.outer(-self._rates, age)
        np.exp(counts, out=counts)
        counts *= np.moveaxis(self._counts.take(place, axis=0), -1, 0)
        counts *= found
        return counts

    def _end(
        self,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        moments: NDArray[np.integer],
    ) -> NDArray[np.int64]:
        """The place of each group's first event at its moment or later."""
        if len(self._bounds) == 1 + 1:
            return np.searchsorted(self._times, moments)
        end = starts.copy()
        step = 1 << int((ends - end).max(initial=0)).bit_length()
        while step := step >> 1:
            # Of all groups at once up to ``step`` more events, where the last one is early enough.
            further = end + step
            np.minimum(further, ends, out=further)
            is_before = self._times.take(further - 1) < moments
            np.copyto(end, further, where=is_before)
        return end


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
