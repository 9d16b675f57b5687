"""Pages of 2 MB for a table that is read at random places.

Each page that a core reads has to be found in the page tables first. With pages of 4 KB nearly
every row of a large table is on one that has not been found lately.
"""

import ctypes
from pathlib import Path

_HUGE = 2 << 20
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25
"""Advice of Linux's ``madvise``: for pages touched from now on, and for those already there."""
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages(address: int, num_bytes: int) -> None:
    """Ask Linux to back a table in memory with large pages.

    Where it cannot, or its administrator has switched them off, the table stays as it is.
    """
    first, end = whole_pages(address, num_bytes)
    if first >= end or not _SETTING.exists() or "[never]" in _SETTING.read_text():
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
        madvise(first, end - first, advice)


def whole_pages(address: int, num_bytes: int) -> tuple[int, int]:
    """First address and end of the large pages that lie in a table as a whole; none where the
    first is the end or beyond it.
    """
    return -(-address // _HUGE) * _HUGE, (address + num_bytes) // _HUGE * _HUGE
