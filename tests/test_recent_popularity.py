import numpy as np
import pytest

from recsys.baselines import rank
from recsys.data.histories import Histories
from recsys.recent_popularity import fit_recent_popularity


def log(*events: tuple[int, int, int]) -> Histories:
    """Of (user, item, time)."""
    users, items, times = np.array(events, dtype=np.int64).T
    return Histories.from_indices(users, items, times, int(users.max()))


EVENTS = log((1, 1, 0), (2, 1, 0), (3, 2, 100), (4, 3, 50), (5, 3, 50))


def test_an_event_a_half_life_old_counts_half() -> None:
    counts = fit_recent_popularity(EVENTS, 3, half_life=0.5).counts
    np.testing.assert_allclose(counts, [[0, 2 / 4, 1, 2 / 2]], rtol=1e-6)


def test_without_a_half_life_it_is_plain_popularity() -> None:
    counts = fit_recent_popularity(EVENTS, 3, half_life=None).counts
    np.testing.assert_array_equal(counts, [[0, 2, 1, 2]])


def test_of_events_at_one_time_none_is_older() -> None:
    train = log((1, 1, 7), (2, 1, 7), (2, 2, 7))
    np.testing.assert_array_equal(fit_recent_popularity(train, 2).counts, [[0, 2, 1]])


def test_what_came_after_a_users_last_event_does_not_count_for_them() -> None:
    fitted = fit_recent_popularity(EVENTS, 3, half_life=0.5, by_user=True)
    first, _, latest, middle, _ = fitted.scores(np.arange(1, 6))
    np.testing.assert_allclose(first[1:], [2, 0, 0])
    np.testing.assert_allclose(middle[1:], [1, 0, 2], rtol=1e-6)
    np.testing.assert_allclose(latest[1:], [0.5, 1, 1], rtol=1e-6)


def test_many_moments_are_rounded_down() -> None:
    """A user's counts lack at most what happened shortly before their last event."""
    number = 1000
    train = log(*((n, n, n) for n in range(1, number + 1)))
    scores = fit_recent_popularity(train, number, None, by_user=True).scores(np.arange(1, 1001))
    seen = (scores[:, 1:] > 0).sum(axis=1)
    assert (seen <= np.arange(1, number + 1)).all()
    assert (seen > np.arange(1, number + 1) - 10).all()


def test_users_without_events_get_what_is_popular_now() -> None:
    train = Histories.from_indices(
        np.array([1, 2, 2]), np.array([1, 2, 3]), np.array([0, 90, 100]), num_users=3
    )
    fitted = fit_recent_popularity(train, 3, half_life=0.1, by_user=True)
    assert rank(fitted, train, np.array([3]), k=3).tolist() == [[3, 2, 1]]


def test_a_half_life_must_be_positive() -> None:
    with pytest.raises(ValueError, match="half_life"):
        fit_recent_popularity(EVENTS, 3, half_life=0.0)
