"""Of several events with one key the latest counts."""

import numpy as np

from recsys.data.latest import latest_rows


def test_the_latest_row_of_each_key_in_time_order() -> None:
    keys = np.array([7, 3, 7, 5, 3, 7])
    times = np.array([9, 4, 2, 5, 4, 9])
    # Of equal times, the row that comes last.
    assert latest_rows(keys, times).tolist() == [4, 3, 5]


def test_nothing_gives_nothing() -> None:
    empty = np.zeros(0, np.int64)
    assert latest_rows(empty, empty).tolist() == []
