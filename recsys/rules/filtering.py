"""Which items pass the rules, whoever asks."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.rules.item_table import UNKNOWN_YEAR, ItemTable
from recsys.rules.rules import Rules
from recsys.schema import PAD_IDX, ExternalId

Encode = Callable[[Sequence[ExternalId]], NDArray[np.int64]]
Mask = NDArray[np.bool_]


def passing(rules: Rules, table: ItemTable, encode: Encode) -> Mask:
    """bool [N + 1], True for items that may be returned; padding is not.

    Args:
        encode: indices of ids, 0 for unknown ones.
    """
    mask = np.ones(len(table) + 1, bool)
    if rules.allow is not None:
        mask = _marked(table, [encode(rules.allow)])
    if rules.genres_any:
        mask &= _marked(table, [table.of_genre(name) for name in rules.genres_any])
    for name in rules.genres_all:
        mask &= _marked(table, [table.of_genre(name)])
    for name in rules.genres_none:
        mask[table.of_genre(name)] = False
    if rules.year_min is not None or rules.year_max is not None:
        mask &= table.years != UNKNOWN_YEAR
    if rules.year_min is not None:
        mask &= table.years >= rules.year_min
    if rules.year_max is not None:
        mask &= table.years <= rules.year_max
    if rules.block:
        mask[encode(rules.block)] = False
    mask[PAD_IDX] = False
    return mask


def _marked(table: ItemTable, lists: Sequence[NDArray[np.int64]]) -> Mask:
    mask = np.zeros(len(table) + 1, bool)
    for items in lists:
        mask[items] = True
    return mask
