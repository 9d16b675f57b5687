"""Settings are chosen on validation events alone, and the choice is the best of what was tried."""

import logging
from functools import partial

import numpy as np
import pytest

from recsys.baseline_search import SPACES, fit_tuned, space_of, tune
from recsys.baselines import fit_ease, fit_popularity, rank
from recsys.data.histories import Histories
from recsys.data.validation import hold_out_like
from recsys.errors import InputError
from recsys.item_neighbours import fit_item_neighbours
from recsys.recent_popularity import fit_recent_popularity


def test_without_times_nothing_is_searched_that_only_they_tell() -> None:
    for fit in SPACES:
        for key, values in space_of(partial(fit), has_times=False).items():
            if key in ("half_life", "time_scale", "by_user"):
                assert values in ([None], [False])
    assert len(space_of(fit_item_neighbours, has_times=True)["half_life"]) > 1


def fashions(num_users: int = 60) -> Histories:
    """Items go out of fashion: users who come later have later ones."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(1, num_users + 1), 6)
    items = np.concatenate([u // 3 + 1 + rng.permutation(10)[:6] for u in range(num_users)])
    times = np.repeat(np.arange(num_users) * 1000, 6) + np.tile(np.arange(6), num_users)
    return Histories.from_indices(users, items, times, num_users)


def test_a_short_memory_is_chosen_where_fashions_change(caplog) -> None:
    train, num_items = fashions(), 32
    remaining, held_out = hold_out_like("leave_last", train, 2, 0.1, seed=0)
    fits = {"all": fit_popularity, "late": partial(fit_recent_popularity, half_life=None)}
    with caplog.at_level(logging.INFO):
        chosen = tune(fits, remaining, held_out, num_items)
    assert chosen["late"].settings["by_user"]
    assert chosen["late"].settings["half_life"] < 1
    assert chosen["late"].value > 2 * chosen["all"].value
    assert "baseline late: half_life" in caplog.text


def test_a_tuned_baseline_is_fitted_to_all_training_events() -> None:
    train = fashions()
    hold_out = partial(hold_out_like, "random", num_test=2, test_fraction=0.1, seed=0)
    fits = {"ease": partial(fit_ease, max_items=32), "too_many": partial(fit_ease, max_items=3)}
    fitted = fit_tuned(fits, hold_out, train, 32)
    assert set(fitted) == {"ease"}  # the other is refused, and said so
    ranked = rank(fitted["ease"], train, np.arange(1, 61), k=10)
    held = train.matrix(32).toarray()
    assert not np.take_along_axis(held[1:], ranked, axis=1)[ranked > 0].any()
    assert fitted["ease"].matrix.nnz == len(train)


def test_nothing_to_choose_by_is_an_error() -> None:
    """Each user has a time of their own: who is held out has no events left."""
    with pytest.raises(InputError, match="validation rows"):
        tune({"all": fit_popularity}, *hold_out_like("global_time", fashions(), 2, 0.1, 0), 32)


@pytest.mark.parametrize("split", ["leave_last", "global_time", "random", "ua"])
def test_validation_events_lie_where_the_split_puts_test_rows(split: str) -> None:
    train = fashions()
    remaining, held_out = hold_out_like(split, train, 2, 0.11, seed=0)
    assert len(held_out)
    assert remaining.num_users == held_out.num_users == train.num_users
    if split == "global_time":
        # Each user has a thousand seconds of their own: only one is cut in two.
        assert remaining.timestamps.max() < held_out.timestamps.min()
        assert np.flatnonzero(held_out.lengths).tolist() == [54]
        return
    assert len(remaining) + len(held_out) == len(train)
    assert held_out.lengths[1:].tolist() == [1 if split == "leave_last" else 2] * 60
    if split == "leave_last":
        ends = train.offsets[1:][1:] - 1
        np.testing.assert_array_equal(held_out.item_idx, train.item_idx[ends])


@pytest.mark.parametrize(
    ("split", "expected"),
    [("leave_last", [0, 1, 1, 2, 4, 5, 5]), ("random", [0, 1, 4, 5, 5, 5, 5])],
)
def test_a_part_of_a_user_is_held_out_but_one_of_two(split: str, expected: list[int]) -> None:
    lengths = [1, 2, 9, 10, 24, 25, 100]
    users = np.repeat(np.arange(1, 8), lengths)
    train = Histories.from_indices(
        users, np.arange(1, len(users) + 1), np.arange(len(users)), num_users=7
    )
    remaining, held_out = hold_out_like(split, train, 5, 0.1, seed=0)
    assert held_out.lengths[1:].tolist() == expected
    assert (remaining.lengths + held_out.lengths == train.lengths).all()
