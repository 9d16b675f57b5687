"""What users did within one sitting, and how far apart their events are."""

import numpy as np
from numpy.typing import NDArray

from recsys.data.histories import Histories


def typical_gap(train: Histories) -> float:
    """The median of the times between an event and the user's next, of those above 0, in seconds.

    0 where there are none.
    """
    gaps = np.diff(train.timestamps)[np.diff(train.user_idx) == 0]
    gaps = gaps[gaps > 0]
    return float(np.median(gaps)) if len(gaps) else 0.0


def sittings(train: Histories, width: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Numbers [n], from 0, of what each user did within ``width`` seconds from a random start."""
    start = rng.integers(0, width, train.num_users + 1)
    user_idx = train.user_idx
    number = (train.timestamps - train.timestamps.min() + start[user_idx]) // width
    begins = (np.diff(user_idx) != 0) | (np.diff(number) != 0)
    return np.concatenate([[0], begins.cumsum()])
