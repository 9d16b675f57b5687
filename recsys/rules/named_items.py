"""The items that rules name, looked up once for all lists of the same rules."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.rules.filtering import Encode
from recsys.rules.item_table import ItemTable
from recsys.rules.rules import Rules

Items = NDArray[np.int64]

_INTEGER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True)
class NamedItems:
    """pins: int64 [P], in order. wanted: int64, ascending: pinned items, and those that are raised.

    boosted: int64 [n], ascending. added: float32 [n], by how much the score of each is raised.
    reasons: of each, the first boost that names it.
    """

    pins: Items
    wanted: Items
    boosted: Items
    added: NDArray[np.float32]
    reasons: list[str]

    @classmethod
    def of(cls, rules: Rules, table: ItemTable, encode: Encode) -> "NamedItems":
        """Those that the catalogue has. A boost by f adds log(f): scores are logits."""
        pins = encode(rules.pin)
        pins = pins[pins > 0]
        found = [_of_boost(key, table, encode) for key, _ in rules.boost]
        items = np.concatenate([np.zeros(0, np.int64), *found])
        factors = np.array([factor for _, factor in rules.boost], np.float64)
        owner = np.repeat(np.arange(len(found)), [len(one) for one in found])
        boosted, first, place = np.unique(items, return_index=True, return_inverse=True)
        added = np.bincount(place, np.log(factors)[owner], len(boosted)).astype(np.float32)
        # Of items alone: a genre may be most of the catalogue.
        raised = [
            one
            for one, (key, factor) in zip(found, rules.boost, strict=True)
            if factor > 1 and key.startswith("item:")
        ]
        wanted = np.unique(np.concatenate([pins, *raised]).astype(np.int64))
        reasons = [f"boost {rules.boost[number][0]}" for number in owner[first].tolist()]
        return cls(pins, wanted, boosted, added, reasons)


def _of_boost(key: str, table: ItemTable, encode: Encode) -> Items:
    kind, _, name = key.partition(":")
    if kind == "genre":
        return table.of_genre(name)
    # An item's id may be an integer.
    found = encode([int(name), name] if _INTEGER.fullmatch(name) else [name])
    return np.unique(found[found > 0])
