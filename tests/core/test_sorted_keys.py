import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.sorted_keys import SortedKeys

NUMBERS = st.integers(-(2**62), 2**62)


@given(
    st.one_of(st.lists(NUMBERS, max_size=400), st.lists(st.integers(0, 20), max_size=400)),
    st.lists(NUMBERS | st.integers(-1, 21), max_size=30),
)
def test_counts_are_those_of_numpy(keys: list[int], wanted: list[int]) -> None:
    ordered = np.sort(np.array(keys, np.int64))
    asked = np.array(wanted, np.int64)
    found = SortedKeys(ordered)
    np.testing.assert_array_equal(found.number_below(asked), np.searchsorted(ordered, asked))
    assert len(found) == len(keys)


def test_shape_is_kept_and_each_border_of_a_block_counts() -> None:
    keys = np.arange(0, 2_000, 2)
    wanted = np.arange(-1, 2_003).reshape(-1, 6)
    found = SortedKeys(keys).number_below(wanted)
    np.testing.assert_array_equal(found, np.searchsorted(keys, wanted))
