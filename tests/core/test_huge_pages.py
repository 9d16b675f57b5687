"""Large pages change where a table lies, and nothing of what it holds."""

import numpy as np

from recsys.core.huge_pages import use_huge_pages


def test_a_table_stays_as_it_is() -> None:
    table = np.random.default_rng(0).random(3_000_000)
    before = table.copy()
    use_huge_pages(table.ctypes.data, table.nbytes)
    np.testing.assert_array_equal(table, before)
    table += 1.0  # and can be written


def test_what_is_smaller_than_a_page_is_left_alone() -> None:
    table = np.arange(10.0)
    use_huge_pages(table.ctypes.data, table.nbytes)
    np.testing.assert_array_equal(table, np.arange(10.0))
