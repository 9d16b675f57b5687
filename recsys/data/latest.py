"""Which of several events of one user and item counts: the latest."""

import numpy as np
from numpy.typing import NDArray


def latest_rows(keys: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of each key's latest event, in time order: int64 [distinct keys].

    Args:
        keys: int64 [n], e.g. of pairs of user and item. times: int64 [n]; of equal ones the row
            that comes last is the latest.
    """
    in_time = np.argsort(times, kind="stable")
    _, last = np.unique(keys[in_time][::-1], return_index=True)
    return in_time[np.sort(len(keys) - 1 - last)]
