"""The best new items at the reserved places of long lists."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from recsys.exploration import MIN_LENGTH, Explored, ReservedPlaces
from recsys.new_items import NewItems
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.retrieved import Retrieved
from recsys.rules.arranging import PIN
from recsys.schema import ExternalId, RankedList

SECONDS_PER_DAY = 86_400
_SECONDS_KEPT = 1.0
# Of the best new items, besides as many as a list may hold already; caps are looked up for each.
_MAX_FITTED = 100

AddedSince = Callable[[float], Mapping[ExternalId, float]]
"""(unix seconds) -> when items were first put into the store, of those after that time."""


@dataclass(frozen=True)
class NewOfCatalogue:
    """What is new in one state of the catalogue, until a time (unix seconds)."""

    recommender: Recommender
    item_ids: list[ExternalId]
    until: float

    @cached_property
    def items(self) -> NewItems:
        """Those that this state has."""
        item_idx = self.recommender.items.encode(self.item_ids)
        return NewItems(self.recommender.retriever, item_idx[item_idx > 0])


class NewItemPlaces:
    """Fills reserved places with items of the event store that were added within the last days.

    Those that the model was trained on with older events are not new: the store has them as their
    titles or attributes were put in again.

    Args:
        max_days: that an item counts as new.
    """

    def __init__(self, places: ReservedPlaces, added_since: AddedSince, max_days: float) -> None:
        self.places = places
        self.max_days = max_days
        self._added_since = added_since
        self._found: NewOfCatalogue | None = None

    def reserves(self, request: Request) -> bool:
        """Whether the list is to have reserved places.

        A text brings new items up by itself, and who asks for it wants nothing else.
        """
        is_long = request.top_k >= MIN_LENGTH and request.text_vector is None
        return is_long and bool(self.places.places)

    def new(self, recommender: Recommender) -> NewOfCatalogue:
        """All new items; looked for when others come, and when the oldest is new no more."""
        now, found = time.time(), self._found
        if found is None or found.recommender is not recommender or now > found.until:
            first = now - self.max_days * SECONDS_PER_DAY
            added = self._added_since(first)
            is_old = recommender.features.in_log_before(recommender.items.encode(added), first)
            new = [item for item, old in zip(added, is_old.tolist(), strict=True) if not old]
            oldest = min((added[item] for item in new), default=np.inf)
            until = max(oldest + self.max_days * SECONDS_PER_DAY, now + _SECONDS_KEPT)
            found = self._found = NewOfCatalogue(recommender, new, until)
        return found

    def filled(
        self, recommender: Recommender, ranked: RankedList, retrieved: Retrieved, row: int
    ) -> Explored | None:
        """The list with new items in it, if it is long enough; None where nothing is new.

        Args:
            retrieved: by stage 1 for its batch. row: of the list in that.
        """
        new = self.new(recommender)
        if not new.item_ids or len(ranked.item_ids) < MIN_LENGTH:
            return None
        listed = recommender.items.encode(ranked.item_ids).tolist()
        best = new.items.best(
            retrieved.encoded.queries[row],
            len(listed) + _MAX_FITTED,
            retrieved.excluded[row].items,
        )
        rules = retrieved.requests[row].rules

        def fits(items: Sequence[int], pool: Sequence[int]) -> Sequence[int]:
            return recommender.rules.with_room(rules, items, pool, 1) if rules.caps else pool

        return self.places.filled(listed, best, new.items.all, num_pinned(ranked), fits)

    def lists(
        self, recommender: Recommender, retrieved: Retrieved, answers: Sequence[RankedList]
    ) -> list[RankedList]:
        """The answers of a batch, with new items in those that reserve places."""
        found = []
        for row, (request, ranked) in enumerate(zip(retrieved.requests, answers, strict=True)):
            reserves = self.reserves(request)
            explored = self.filled(recommender, ranked, retrieved, row) if reserves else None
            is_changed = explored is not None and any(explored.is_new)
            found.append(
                as_ranked(recommender, ranked, explored) if explored and is_changed else ranked
            )
        return found


def num_pinned(ranked: RankedList) -> int:
    """How many items come first by a rule."""
    return sum(rule == PIN for rule in ranked.touched)


def as_ranked(recommender: Recommender, ranked: RankedList, found: Explored) -> RankedList:
    """The list as it was explored; an item that was put in has the score of the next one."""
    item_ids = recommender.items.decode(np.array(found.items, np.int64))
    listed = ranked.item_ids
    touched = dict(zip(listed, ranked.touched or [None] * len(listed), strict=True))
    own = dict(zip(listed, ranked.scores.tolist(), strict=True))
    score, scores = float(ranked.scores[-1]), []
    for item in reversed(item_ids):
        score = own.get(item, score)
        scores.append(score)
    return replace(
        ranked,
        item_ids=item_ids,
        scores=np.array(scores[::-1], np.float32),
        touched=[
            "exploration" if is_new else touched[item]
            for item, is_new in zip(item_ids, found.is_new, strict=True)
        ],
    )
