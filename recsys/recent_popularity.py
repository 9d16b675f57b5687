"""A baseline that gives everybody what has been popular lately."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.histories import Histories
from recsys.schema import PAD_IDX

_MOMENTS = 200


@dataclass(frozen=True)
class RecentPopularity:
    """Items by decayed counts of the events up to a moment, which may be a user's own.

    counts: float32 [M, N + 1], a row per moment. moment: int64 [U + 1], the row of each user.
    """

    counts: NDArray[np.float32]
    moment: NDArray[np.int64]

    def scores(self, user_idx: NDArray[np.int64]) -> NDArray[np.float32]:
        scores = self.counts[self.moment[user_idx]]
        scores[:, PAD_IDX] = -np.inf
        return scores


def fit_recent_popularity(
    train: Histories, num_items: int, half_life: float | None = 0.1, by_user: bool = False
) -> RecentPopularity:
    """Count each item's training events, the latest most.

    Args:
        half_life: an event so much older counts half. A share of the time from the log's first
            event to its last, since logs are of minutes or of years; None: all count alike.
        by_user: whether events count up to each user's own last one instead of up to the log's
            end. The moments are rounded down to at most 200 of them.

    Raises:
        ValueError: when the half-life is not positive.
    """
    if half_life is not None and not half_life > 0:
        raise ValueError(f"expected a positive half_life or None; found {half_life}")
    times, width = train.timestamps, num_items + 1
    moments = np.array([times.max(initial=0)])
    known = train.lengths > 0
    own = times[train.offsets[1:][known] - 1]
    if by_user and len(train):
        # The earliest is one of them, so that nobody is shown what came after.
        moments = np.unique(np.quantile(own, np.linspace(0, 1, _MOMENTS), method="lower"))
    # Users without events are asked for now.
    moment = np.full(train.num_users + 1, len(moments) - 1, dtype=np.int64)
    if by_user:
        moment[known] = np.searchsorted(moments, own, side="right") - 1
    # An event counts from the first moment on that is not before it; after the last, never.
    first = np.searchsorted(moments, times)
    seen = first < len(moments)
    first, times, items = first[seen], times[seen], train.item_idx[seen]
    span = float(np.ptp(train.timestamps)) if len(train) else 0.0
    rate = np.log(2) / (half_life * span) if half_life and span else 0.0
    weights = np.exp(-rate * (moments[first] - times))
    size = len(moments) * width
    counts = np.bincount(first * width + items, weights, minlength=size).reshape(-1, width)
    decay = np.exp(-rate * np.diff(moments))
    for number, share in enumerate(decay, start=1):
        counts[number] += share * counts[number - 1]
    return RecentPopularity(counts.astype(np.float32), moment)
