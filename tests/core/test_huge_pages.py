"""Large pages change where a table lies, and nothing of what it holds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.huge_pages import use_huge_pages, whole_pages

PAGE = 2 << 20


@given(st.integers(0, 8 * PAGE), st.integers(0, 8 * PAGE))
def test_pages_lie_in_the_table_and_no_more_would(address: int, num_bytes: int) -> None:
    first, end = whole_pages(address, num_bytes)
    assert first % PAGE == end % PAGE == 0
    if first < end:
        assert address <= first < address + PAGE
        assert address + num_bytes - PAGE < end <= address + num_bytes
    else:
        assert num_bytes < 2 * PAGE - 1


def test_an_aligned_page_is_one_and_anything_less_is_none() -> None:
    assert whole_pages(PAGE, PAGE) == (PAGE, 2 * PAGE)
    for address, num_bytes in ((PAGE, PAGE - 1), (PAGE + 1, PAGE), (PAGE + 1, 2 * PAGE - 2)):
        first, end = whole_pages(address, num_bytes)
        assert first >= end


def test_a_table_stays_as_it_is() -> None:
    table = np.random.default_rng(0).random(3_000_000)
    before = table.copy()
    use_huge_pages(table.ctypes.data, table.nbytes)
    np.testing.assert_array_equal(table, before)
    table += 1.0  # and can be written
