"""Recent popularity equals a sum over the events before a moment."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.histories import Histories
from recsys.signals.windows import RecentPopularity

DAY = 86_400
DAYS = (1, 7, 30)


def histories_of(items: list[int], times: list[int]) -> Histories:
    return Histories.from_indices(
        np.ones(len(times), np.int64), np.array(items, np.int64), np.array(times, np.int64), 1
    )


def decayed(items: list[int], times: list[int], item: int | None, now: int, days: float) -> float:
    """Of one item, or of all."""
    return sum(
        float(np.exp(-(now - time) / (days * DAY)))
        for own, time in zip(items, times, strict=True)
        if time < now and item in (None, own)
    )


@settings(max_examples=100, deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 400 * DAY)), max_size=25),
    now=st.integers(-10 * DAY, 500 * DAY),
)
def test_counts_equal_brute_force(events: list[tuple[int, int]], now: int) -> None:
    items, times = [item for item, _ in events], [time for _, time in events]
    found = RecentPopularity(histories_of(items, times), 4, DAYS)(
        np.array([[1, 2, 3, 4, 0]]), np.array([now])
    )
    assert found.shape == (1, 5, 6)
    # After the last event nothing is known of how time has passed.
    moment = min(now, max(times, default=0) + 1)
    for column, days in enumerate(DAYS):
        total = decayed(items, times, None, moment, days)
        for row, item in enumerate((1, 2, 3, 4, 0)):
            count = decayed(items, times, item, moment, days)
            expected = total * items.count(item) / max(len(items), 1)
            np.testing.assert_allclose(found[0, row, column], np.log1p(count), atol=1e-5)
            trend = np.log((count + 1) / (expected + 1))
            np.testing.assert_allclose(found[0, row, 3 + column], trend, atol=1e-5)


def test_nothing_after_the_moment_counts() -> None:
    """Events at the moment and later may be anywhere."""
    now = 40 * DAY
    before = [now - 1, now - 5 * DAY]

    def counts(later: list[int]) -> np.ndarray:
        histories = histories_of([1, 2, 2, 1], [*before, *later])
        return RecentPopularity(histories, 2, DAYS)(np.array([[1, 2]]), np.array([now]))

    assert (counts([now, now + DAY]) == counts([now + 50 * DAY, now + 70 * DAY])).all()
    assert (counts([now, now + DAY]) != counts([now - DAY, now - DAY])).any()


def test_long_logs_lose_no_precision() -> None:
    """Twenty years of a time constant of a day, in which exp(time) would overflow."""
    times = list(range(0, 7300 * DAY, 97 * DAY // 10))
    items = [1 + n % 2 for n in range(len(times))]
    popularity = RecentPopularity(histories_of(items, times), 2, (1,))
    for now in (times[-1] + 1, times[len(times) // 2] + 1, times[3] + 1):
        found = popularity(np.array([[1, 2]]), np.array([now]))[0, :, 0]
        expected = [np.log1p(decayed(items, times, item, now, 1)) for item in (1, 2)]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_later_items_and_no_events_at_all_count_nothing() -> None:
    popularity = RecentPopularity(histories_of([], []), 3, DAYS)
    assert not popularity(np.array([[0, 1, 3]]), np.array([5])).any()


def test_an_event_counts_by_its_weight() -> None:
    items, times = [1, 2, 1, 3, 1], [0, DAY, 2 * DAY, 40 * DAY, 41 * DAY]
    now = times[-1] + 1
    weights = np.array([4.0, 0.5, 1.0, 0.25, 4.25], np.float32)  # 2 on average
    given_histories = replace(histories_of(items, times), weights=weights)
    found = RecentPopularity(given_histories, 3, DAYS)(np.array([[1]]), np.array([now]))
    for column, days in enumerate(DAYS):
        own = [(weights[place] / 2, times[place]) for place in (0, 2, 4)]
        count = sum(weight * np.exp(-(now - time) / (days * DAY)) for weight, time in own)
        np.testing.assert_allclose(found[0, 0, column], np.log1p(count), rtol=1e-4)
