"""New items at some places of lists, and a line in the log for each list that has any."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys.api.models import ModelStore
from recsys.exploration import MIN_LENGTH, Exploration, Explored, ReservedPlaces
from recsys.new_items import NewItems
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.retrieved import Retrieved
from recsys.rules.arranging import PIN
from recsys.schema import ExternalId, RankedList

log = logging.getLogger(__name__)

_SECONDS_PER_DAY = 86_400
_SECONDS_KEPT = 1.0
# Of the best new items, besides as many as a list may hold already; caps are looked up for each.
_MAX_FITTED = 100


@dataclass(frozen=True)
class _Found:
    """What is new in one state of the catalogue, until a time (unix seconds)."""

    recommender: Recommender
    item_ids: list[ExternalId]
    until: float

    @cached_property
    def items(self) -> NewItems:
        """Those that this state has."""
        item_idx = self.recommender.items.encode(self.item_ids)
        return NewItems(self.recommender.retriever, item_idx[item_idx > 0])


class ListExploration:
    """Explores items of the event store that were added within the last days.

    Those that the model was trained on with older events are not new: the store has them as their
    titles or attributes were put in again.

    Args:
        policy: of lists that have no reserved places. max_days: that an item counts as new.
    """

    def __init__(
        self, policy: Exploration, places: ReservedPlaces, models: ModelStore, max_days: float
    ) -> None:
        self.policy = policy
        self.places = places
        self.models = models
        self.max_days = max_days
        self.nothing = np.zeros(policy.slots, bool)
        self._found: _Found | None = None
        self._rng = np.random.default_rng()

    def draw(self, request: Request) -> NDArray[np.bool_]:
        """Which of the last places are given away: none in lists with reserved places."""
        return self.nothing if self._reserves(request) else self.policy.draw(self._rng)

    def num_new(self, recommender: Recommender) -> int:
        """How many items are new now."""
        return len(self._new(recommender).item_ids)

    def leaves_to_chance(self, recommender: Recommender, request: Request) -> bool:
        """Whether items of its list may be drawn."""
        by_chance = self.policy.epsilon > 0 and not self._reserves(request)
        return by_chance and self.num_new(recommender) > 0

    def _reserves(self, request: Request) -> bool:
        """Whether the list is to have reserved places.

        A text brings new items up by itself, and who asks for it wants nothing else.
        """
        is_long = request.top_k >= MIN_LENGTH and request.text_vector is None
        return is_long and bool(self.places.places)

    def _new(self, recommender: Recommender) -> _Found:
        """All new items; looked for when others come, and when the oldest is new no more."""
        now, found = time.time(), self._found
        if found is None or found.recommender is not recommender or now > found.until:
            first = now - self.max_days * _SECONDS_PER_DAY
            added = self.models.added_since(first)
            is_old = recommender.features.in_log_before(recommender.items.encode(added), first)
            new = [item for item, old in zip(added, is_old.tolist(), strict=True) if not old]
            oldest = min((added[item] for item in new), default=np.inf)
            until = max(oldest + self.max_days * _SECONDS_PER_DAY, now + _SECONDS_KEPT)
            found = self._found = _Found(recommender, new, until)
        return found

    def explored(
        self,
        recommender: Recommender,
        request: Request,
        ranked: RankedList,
        found: tuple[Retrieved, int] | None,
        drawn: NDArray[np.bool_],
    ) -> tuple[RankedList, list[float] | None]:
        """The list with new items in it, and the propensities of all of its items.

        None of these where nothing was left to chance, and nothing was put in.

        Args:
            found: by stage 1 for its batch, and its row in that; without it no reserved place is
                filled. drawn: from ``draw``.
        """
        explored = None
        if not self._reserves(request):
            if self.policy.epsilon:
                explored = self._drawn(recommender, request, ranked, drawn)
        elif found is not None and len(ranked.item_ids) >= MIN_LENGTH:
            explored = self._filled(recommender, ranked, *found)
        if explored is not None and any(explored.is_new):
            ranked = _ranked(recommender, ranked, explored)
            fields = {
                "user_id": request.user_id,
                "top_items": ranked.item_ids,
                "propensities": explored.propensities,
            }
            log.info("exploration", extra={"fields": fields})
            return ranked, explored.propensities
        if not self.policy.epsilon:
            return ranked, None
        return ranked, [1.0] * len(ranked.item_ids) if explored is None else explored.propensities

    def _drawn(
        self,
        recommender: Recommender,
        request: Request,
        ranked: RankedList,
        drawn: NDArray[np.bool_],
    ) -> Explored:
        new = recommender.returnable(request, self._new(recommender).item_ids)
        listed = recommender.items.encode(ranked.item_ids).tolist()
        pool = recommender.items.encode(new).tolist()
        pool = recommender.rules.with_room(request.rules, listed, pool, self.policy.slots)
        return self.policy.explored(listed, pool, drawn, self._rng, _num_pinned(ranked))

    def _filled(
        self, recommender: Recommender, ranked: RankedList, retrieved: Retrieved, row: int
    ) -> Explored | None:
        new = self._new(recommender)
        if not new.item_ids:
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

        return self.places.filled(listed, best, new.items.all, _num_pinned(ranked), fits)


def _num_pinned(ranked: RankedList) -> int:
    return sum(rule == PIN for rule in ranked.touched)


def _ranked(recommender: Recommender, ranked: RankedList, found: Explored) -> RankedList:
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
