import numpy as np
import pytest

from recsys import item_neighbours
from recsys.baselines import rank
from recsys.data.histories import Histories
from recsys.item_neighbours import fit_item_neighbours


def histories(*of_users: tuple[int, ...], gap: int = 1) -> Histories:
    """Users 1, 2, … with these items, ``gap`` seconds apart."""
    users = np.repeat(np.arange(1, len(of_users) + 1), [len(items) for items in of_users])
    items = np.array([item for items in of_users for item in items], dtype=np.int64)
    times = np.arange(len(items), dtype=np.int64) * gap
    return Histories.from_indices(users, items, times, len(of_users))


TRAIN = histories((1, 2), (1, 2), (1, 3), (4, 3), (1,))


def test_similarity_is_a_damped_cosine() -> None:
    similar = fit_item_neighbours(TRAIN, 4, shrinkage=1.0).similar.toarray()
    assert similar[1, 2] == pytest.approx(2 / (np.sqrt(4 * 2) + 1))
    assert similar[3, 4] == pytest.approx(1 / (np.sqrt(2 * 1) + 1))
    np.testing.assert_allclose(similar, similar.T)
    assert not similar.diagonal().any()


def test_the_neighbour_of_a_users_item_comes_first() -> None:
    assert rank(fit_item_neighbours(TRAIN, 4), TRAIN, np.array([5]), k=2).tolist() == [[2, 3]]


def test_only_the_most_similar_are_kept() -> None:
    similar = fit_item_neighbours(TRAIN, 4, neighbours=1).similar.toarray()
    assert (np.count_nonzero(similar, axis=1) <= 1).all()
    assert similar[1].argmax() == 2


def test_a_catalogue_in_chunks_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    train = histories(*(tuple(rng.permutation(40)[:9] + 1) for _ in range(60)))
    whole = fit_item_neighbours(train, 40, neighbours=7).similar.toarray()
    monkeypatch.setattr(item_neighbours, "_CELLS_PER_CHUNK", 100)
    chunked = fit_item_neighbours(train, 40, neighbours=7).similar.toarray()
    np.testing.assert_array_equal(whole, chunked)


def test_pairs_that_lie_apart_count_less() -> None:
    near = histories((1, 2), (1, 3), gap=100)
    similar = fit_item_neighbours(near, 3, exponent=0.0, shrinkage=0.0, time_scale=100.0).similar
    assert similar[1, 2] == pytest.approx(0.5)


def test_a_users_latest_events_weigh_most() -> None:
    train = histories((1, 2, 3), (1, 4), (3, 5))
    weights = fit_item_neighbours(train, 5, half_life=1.0).matrix.toarray()
    np.testing.assert_allclose(weights[1, 1:4], [0.25, 0.5, 1.0])
    assert rank(fit_item_neighbours(train, 5, half_life=1.0), train, np.array([1]), 2)[0, 0] == 5


def test_of_an_item_that_repeats_the_latest_event_counts() -> None:
    train = histories((1, 2, 1), (2, 1))
    weights = fit_item_neighbours(train, 2, half_life=1.0).matrix.toarray()
    np.testing.assert_allclose(weights[1, 1:], [1.0, 0.5])


@pytest.mark.parametrize("wrong", [{"neighbours": 0}, {"half_life": 0.0}, {"time_scale": -1.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        fit_item_neighbours(TRAIN, 4, **wrong)
