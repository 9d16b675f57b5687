from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.exploration import MIN_LENGTH, Exploration, ReservedPlaces


@given(
    length=st.integers(0, 6),
    pool=st.lists(st.integers(4, 12), unique=True, max_size=8),
    slots=st.integers(1, 4),
    num_fixed=st.integers(0, 7),
    seed=st.integers(0, 100),
)
def test_a_list_keeps_its_length_and_its_first_places(
    length: int, pool: list[int], slots: int, num_fixed: int, seed: int
) -> None:
    policy, rng = Exploration(0.6, slots), np.random.default_rng(seed)
    items = list(range(1, length + 1))
    found = policy.explored(items, pool, policy.draw(rng), rng, num_fixed)
    assert len(found.items) == len(set(found.items)) == length
    kept = max(length - slots, num_fixed, 0)
    assert found.items[:kept] == items[:kept]
    for place, item in enumerate(found.items):
        assert found.is_new[place] == (item != items[place])
        assert item == items[place] or item in pool
        assert 0 < found.propensities[place] <= 1


def test_propensities_are_how_often_items_are_at_their_places() -> None:
    policy, rng = Exploration(0.3, 2), np.random.default_rng(0)
    number, seen, said = 60_000, Counter(), {}
    for _ in range(number):
        found = policy.explored([1, 2, 3, 4], [3, 7, 8, 9], policy.draw(rng), rng)
        for place, (item, propensity) in enumerate(
            zip(found.items, found.propensities, strict=True)
        ):
            seen[place, item] += 1
            assert said.setdefault((place, item), propensity) == propensity
    assert len(seen) == 2 + 2 * 4
    for key, count in seen.items():
        deviation = np.sqrt(said[key] * (1 - said[key]) / number)
        assert count / number == pytest.approx(said[key], abs=5 * deviation + 1e-9)


@pytest.mark.parametrize(("epsilon", "slots"), [(-0.1, 1), (1.0, 1), (0.1, 0), (float("nan"), 1)])
def test_a_policy_that_cannot_be_is_refused(epsilon: float, slots: int) -> None:
    with pytest.raises(InputError, match="expected exploration"):
        Exploration(epsilon, slots)


def filled(*args, places: tuple[int, ...] = (11, 14, 17), **options) -> tuple[list[int], list[int]]:
    """The list, and the places (from 1) that new items were put at."""
    found = ReservedPlaces(places).filled(*args, **options)
    assert found.propensities == [1.0] * len(found.items)
    return found.items, [place for place, is_new in enumerate(found.is_new, 1) if is_new]


TWENTY = list(range(1, 21))


def test_reserved_places_get_the_best_in_their_order_and_others_move_down() -> None:
    items, places = filled(TWENTY, [31, 32, 33, 34], {31, 32, 33, 34})
    assert items == [*range(1, 11), 31, 11, 12, 32, 13, 14, 33, 15, 16, 17]
    assert places == [11, 14, 17]


def test_what_is_listed_already_is_passed_over_and_is_not_the_one_to_leave() -> None:
    items, places = filled(TWENTY, [3, 31, 20], {3, 20, 31})
    assert items == [*range(1, 11), 31, *range(11, 19), 20]
    assert places == [11]


def test_shorter_lists_have_no_reserved_places() -> None:
    assert filled(TWENTY[:19], [31], {31}) == (TWENTY[:19], [])


def test_a_place_beyond_the_list_or_among_fixed_ones_is_passed_over() -> None:
    items, places = filled(TWENTY, [31, 32], {31, 32}, places=(30, 20, 5), num_fixed=5)
    assert items == [*range(1, 20), 31]
    assert places == [20]


def test_an_item_must_fit_into_what_is_left_of_the_list() -> None:
    asked = []

    def fits(items, pool):
        asked.append(list(items))
        return [item for item in pool if item != 31]

    items, places = filled(TWENTY, [31, 32], {31, 32}, fits=fits)
    assert items == [*range(1, 11), 32, *range(11, 20)]
    assert places == [11]
    assert asked[0] == TWENTY[:19]


@given(
    length=st.integers(0, 40),
    best=st.lists(st.integers(1, 60), unique=True, max_size=12),
    places=st.lists(st.integers(1, 45), unique=True, max_size=6),
    num_fixed=st.integers(0, 30),
)
def test_a_filled_list_keeps_its_length_and_the_order_of_what_stays(
    length: int, best: list[int], places: list[int], num_fixed: int
) -> None:
    items = list(range(1, length + 1))
    found = ReservedPlaces(places).filled(items, best, set(best), num_fixed)
    assert len(found.items) == len(set(found.items)) == length
    put_in = [item for item, is_new in zip(found.items, found.is_new, strict=True) if is_new]
    at = {place for place, is_new in enumerate(found.is_new, 1) if is_new}
    assert at <= set(places)
    assert not put_in or length >= MIN_LENGTH
    assert put_in == [item for item in best if item > length][: len(put_in)]
    kept = [item for item in found.items if item <= length]
    assert kept == sorted(kept)
    assert {item for item in best if item <= length} <= set(kept)
    assert found.items[:num_fixed] == items[:num_fixed]


@pytest.mark.parametrize("places", [[0], [-1], [11, 11], [1.5], [True], ["11"], "11", 11, None])
def test_places_that_cannot_be_are_refused(places: Any) -> None:
    with pytest.raises(InputError, match=r"places .*; found .*; set exploration.places=\["):
        ReservedPlaces(places)
