from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.exploration import Exploration


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
