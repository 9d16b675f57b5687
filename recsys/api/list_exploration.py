"""New items at some places of lists, and a line in the log for each list that has any."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.api.models import ModelStore
from recsys.exploration import MIN_LENGTH, Exploration, Explored, ReservedPlaces
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.rules.arranging import PIN
from recsys.schema import ExternalId, RankedList

log = logging.getLogger(__name__)

_SECONDS_PER_DAY = 86_400
_SECONDS_KEPT = 1.0
# Of the best new items, besides as many as a list may hold already; caps are looked up for each.
_MAX_FITTED = 100


@dataclass(frozen=True)
class _NewItems:
    """Of one state of the catalogue, until a time (unix seconds)."""

    recommender: Recommender
    item_ids: list[ExternalId]
    until: float


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
        self._found: _NewItems | None = None
        self._rng = np.random.default_rng()

    def draw(self, request: Request) -> NDArray[np.bool_]:
        """Which of the last places are given away: none in lists with reserved places."""
        return self.nothing if self._reserves(request) else self.policy.draw(self._rng)

    def num_new(self, recommender: Recommender) -> int:
        """How many items are new now."""
        return len(self._new(recommender))

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

    def _new(self, recommender: Recommender) -> list[ExternalId]:
        """All new items; looked for when others come, and when the oldest is new no more."""
        now, found = time.time(), self._found
        if found is None or found.recommender is not recommender or now > found.until:
            first = now - self.max_days * _SECONDS_PER_DAY
            added = self.models.added_since(first)
            is_old = recommender.features.in_log_before(recommender.items.encode(added), first)
            new = [item for item, old in zip(added, is_old.tolist(), strict=True) if not old]
            oldest = min((added[item] for item in new), default=np.inf)
            until = max(oldest + self.max_days * _SECONDS_PER_DAY, now + _SECONDS_KEPT)
            found = self._found = _NewItems(recommender, new, until)
        return found.item_ids

    def explored(
        self,
        recommender: Recommender,
        request: Request,
        ranked: RankedList,
        query: NDArray[np.float32] | None,
        drawn: NDArray[np.bool_],
    ) -> tuple[RankedList, list[float] | None]:
        """The list with new items in it, and the propensities of all of its items.

        None of these where nothing was left to chance, and nothing was put in.

        Args:
            query: float32 [D], stage 1's; without it no reserved place is filled. drawn: from
                ``draw``.
        """
        propensities = [1.0] * len(ranked.item_ids) if self.policy.epsilon else None
        reserves = self._reserves(request)
        if reserves:
            is_explored = query is not None and len(ranked.item_ids) >= MIN_LENGTH
        else:
            is_explored = self.policy.epsilon > 0
        new = self._new(recommender) if is_explored else []
        if new:
            new = recommender.returnable(request, new)
        if not new:
            return ranked, propensities
        listed = recommender.items.encode(ranked.item_ids).tolist()
        num_pinned = sum(rule == PIN for rule in ranked.touched)
        pool = recommender.items.encode(new)
        if reserves:
            assert query is not None
            found = self._filled(recommender, request, listed, pool, query, num_pinned)
        else:
            slots = self.policy.slots
            fitting = recommender.rules.with_room(request.rules, listed, pool.tolist(), slots)
            found = self.policy.explored(listed, fitting, drawn, self._rng, num_pinned)
        if any(found.is_new):
            ranked = _ranked(recommender, ranked, listed, found)
            fields = {
                "user_id": request.user_id,
                "top_items": ranked.item_ids,
                "propensities": found.propensities,
            }
            log.info("exploration", extra={"fields": fields})
        if self.policy.epsilon or any(found.is_new):
            propensities = found.propensities
        return ranked, propensities

    def _filled(
        self,
        recommender: Recommender,
        request: Request,
        listed: Sequence[int],
        pool: NDArray[np.int64],
        query: NDArray[np.float32],
        num_pinned: int,
    ) -> Explored:
        def fits(items: Sequence[int], best: Sequence[int]) -> list[int]:
            return recommender.rules.with_room(request.rules, items, best, 1)

        best = recommender.retriever.best_of(
            torch.from_numpy(pool), torch.from_numpy(query), len(listed) + _MAX_FITTED
        )
        new = set(recommender.items.encode(self._new(recommender)).tolist())
        return self.places.filled(listed, best.tolist(), new, num_pinned, fits)


def _ranked(
    recommender: Recommender, ranked: RankedList, listed: Sequence[int], found: Explored
) -> RankedList:
    """The list as it was explored; an item that was put in has the score of the next one."""
    touched = dict(zip(listed, ranked.touched or [None] * len(listed), strict=True))
    own = dict(zip(listed, ranked.scores.tolist(), strict=True))
    score, scores = float(ranked.scores[-1]), []
    for item in reversed(found.items):
        score = own.get(item, score)
        scores.append(score)
    return replace(
        ranked,
        item_ids=recommender.items.decode(np.array(found.items, np.int64)),
        scores=np.array(scores[::-1], np.float32),
        touched=[
            "exploration" if is_new else touched[item]
            for item, is_new in zip(found.items, found.is_new, strict=True)
        ],
    )
