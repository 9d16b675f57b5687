"""Binary search in arrays that no cache holds."""

import numpy as np
from numpy.typing import NDArray

_BLOCK = 64
"""Keys between two of the first step's: a power of two."""


class SortedKeys:
    """``np.searchsorted`` in two steps: among every 64th key, in the cache, then between.

    A search through all keys waits for memory at most of its steps.

    Args:
        keys: int64 [N], sorted, below 2 ** 63 - 1.
    """

    def __init__(self, keys: NDArray[np.int64]) -> None:
        self._every = keys[::_BLOCK].copy()
        beyond = np.full(_BLOCK, np.iinfo(np.int64).max)
        self._keys = np.concatenate([keys, beyond])

    def __len__(self) -> int:
        return len(self._keys) - _BLOCK

    def number_below(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many keys are below each of ``wanted``, int64 of the same shape."""
        block = np.searchsorted(self._every, wanted) - 1
        number = np.maximum(block, 0) * _BLOCK
        step = _BLOCK // 2
        while step:
            number += step * (self._keys[number + (step - 1)] < wanted)
            step //= 2
        number += self._keys[number] < wanted
        return number
