"""Pages of 2 MB for a table that is read at random places.

Each page that a core reads has to be found in the page tables first. With pages of 4 KB nearly
every row of a large table is on one that has not been found lately.
"""

import ctypes
import sys

_HUGE = 2 << 20
_ADVISE_HUGE, _COLLAPSE = 14, 25
"""Of ``madvise`` (Linux): for pages that come, and of those that are there."""


def use_huge_pages(address: int, num_bytes: int) -> None:
    """Ask for large pages below a table in memory; where there are none, it stays as it is."""
    if not sys.platform.startswith("linux"):
        return
    first, end = -(-address // _HUGE) * _HUGE, (address + num_bytes) // _HUGE * _HUGE
    if first < end:
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        for advice in (_ADVISE_HUGE, _COLLAPSE):
            madvise(first, end - first, advice)
