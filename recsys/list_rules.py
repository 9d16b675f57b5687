"""Requests' rules, applied to the items of one state of the catalogue."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.vocabulary import Vocabulary
from recsys.request import Request
from recsys.rules import Arranged, ItemTable, NamedItems, Rules, arrange, passing
from recsys.rules.arranging import with_room

Items = NDArray[np.int64]
Scores = NDArray[np.float32]

MOST_ARRANGED = 10_000
"""Rules look at so many items at most for one list, which bounds the time that it takes."""
_MAX_MASKS = 256
_MAX_NAMED = 64
_FURTHER = 1e-3
"""By how much the score falls from one item to the next, for items that have none of their own."""


@dataclass(frozen=True)
class RankedItems:
    """item_idx: int64 [K], best first, without padding. scores: float32 [K]."""

    item_idx: Items
    scores: Scores


class ListRules:
    """Which items may be in a list, and in which order.

    Args:
        table: of the catalogue. items: its vocabulary. text: float32 [N + 1, T].
    """

    def __init__(self, table: ItemTable, items: Vocabulary, text: Tensor) -> None:
        self.table = table
        self.items = items
        self.text = text
        self._masks: dict[Rules, NDArray[np.bool_]] = {}
        self._named: dict[Rules, NamedItems] = {}

    def with_items(
        self, items: Vocabulary, item_idx: Items, frame: pd.DataFrame, text: Tensor
    ) -> "ListRules":
        """With items int64 [m] as in the frame, new ones or others in their place.

        Args:
            items, text: of the whole catalogue then.
        """
        return ListRules(self.table.with_items(item_idx, frame), items, text)

    def mask(self, rules: Rules) -> NDArray[np.bool_] | None:
        """bool [N + 1], True for items that may be returned; None where all may."""
        if not rules.filters:
            return None
        found = self._masks.get(rules)
        if found is None:
            if len(self._masks) >= _MAX_MASKS:  # as some client makes up new ones all the time
                self._masks.clear()
            found = self._masks[rules] = passing(rules, self.table, self.items.encode)
        return found

    def named(self, rules: Rules) -> NamedItems:
        """The items that rules name."""
        found = self._named.get(rules)
        if found is None:
            if len(self._named) >= _MAX_NAMED:
                self._named.clear()
            found = self._named[rules] = NamedItems.of(rules, self.table, self.items.encode)
        return found

    def with_room(
        self, rules: Rules, listed: Sequence[int], pool: Sequence[int], places: int
    ) -> list[int]:
        """Those of a pool of items that any ``places`` of a list can be given to within caps."""
        return with_room(listed, pool, places, rules, self.table)

    def arranged(
        self,
        request: Request,
        candidates: RankedItems,
        everything: Callable[[], RankedItems] | None,
        *,
        diversify: bool = True,
    ) -> Arranged:
        """The list of a request whose rules arrange lists.

        Args:
            everything: all items that may be returned; asked for where caps leave too few of
                the candidates. None where there are no others. diversify: False leaves diversity
                out, which takes longest.
        """
        found = self._arranged(request, candidates, diversify=diversify)
        if found.is_capped and everything is not None:
            continued = _continued(candidates, everything())
            found = self._arranged(request, continued, diversify=diversify)
        return found

    def _arranged(self, request: Request, candidates: RankedItems, *, diversify: bool) -> Arranged:
        is_diverse = diversify and bool(request.rules.diversity)
        return arrange(
            candidates.item_idx,
            candidates.scores,
            request.top_k,
            request.rules,
            self.table,
            self.text[candidates.item_idx].numpy() if is_diverse else None,
            self.named(request.rules),
        )

    def notes(self, request: Request, number: int, *, is_capped: bool) -> list[str]:
        """Why a list of so many items is shorter than asked for."""
        rules, top_k = request.rules, request.top_k
        if number >= top_k:
            return []
        if is_capped:
            caps = ", ".join(f"at most {cap} per {name}" for name, cap in rules.caps)
            return [f"{number} of {top_k} items: {caps}"]
        mask = self.mask(rules)
        if mask is None:
            return [f"{number} of {top_k} items: the catalogue has no others for this user"]
        unknown = [
            name
            for name in (*rules.genres_any, *rules.genres_all)
            if not len(self.table.of_genre(name))
        ]
        missing = [f"no item has the genre {name!r}" for name in unknown]
        passed = int(mask.sum())
        return [
            f"{number} of {top_k} items: {passed} pass the filters, "
            f"of which {passed - number} were seen, dismissed or excluded",
            *missing,
        ]


def _continued(candidates: RankedItems, everything: RankedItems) -> RankedItems:
    """The candidates, then all others in their own order."""
    rest = everything.item_idx[~np.isin(everything.item_idx, candidates.item_idx)]
    lowest = candidates.scores[-1] if len(candidates.scores) else np.float32(0)
    falling = lowest - _FURTHER * np.arange(1, len(rest) + 1, dtype=np.float32)
    return RankedItems(
        np.concatenate([candidates.item_idx, rest]),
        np.concatenate([candidates.scores, falling.astype(np.float32)]),
    )
