"""New items at some places of lists, and a line in the log for each list that has any."""

import logging
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.exploration import Exploration, Explored, ReservedPlaces
from recsys.new_item_places import NewItemPlaces, as_ranked, num_pinned
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.retrieved import Retrieved
from recsys.schema import ExternalId, RankedList

log = logging.getLogger(__name__)


class StoredItems(Protocol):
    """Knows when items were put in, such as a ``ModelStore``."""

    def added_since(self, time: float) -> dict[ExternalId, float]:
        """See ``AddedSince``."""


class ListExploration:
    """Explores items of the event store that were added within the last days; see
    ``NewItemPlaces``.

    Args:
        policy: of lists that have no reserved places. max_days: that an item counts as new.
    """

    def __init__(
        self, policy: Exploration, places: ReservedPlaces, models: StoredItems, max_days: float
    ) -> None:
        self.policy = policy
        self.places = NewItemPlaces(places, models.added_since, max_days)
        self.nothing = np.zeros(policy.slots, bool)
        self._rng = np.random.default_rng()

    def draw(self, request: Request) -> NDArray[np.bool_]:
        """Which of the last places are given away: none in lists with reserved places."""
        return self.nothing if self.places.reserves(request) else self.policy.draw(self._rng)

    def num_new(self, recommender: Recommender) -> int:
        """How many items are new now."""
        return len(self.places.new(recommender).item_ids)

    def leaves_to_chance(self, recommender: Recommender, request: Request) -> bool:
        """Whether items of its list may be drawn."""
        by_chance = self.policy.epsilon > 0 and not self.places.reserves(request)
        return by_chance and self.num_new(recommender) > 0

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
        if not self.places.reserves(request):
            if self.policy.epsilon:
                explored = self._drawn(recommender, request, ranked, drawn)
        elif found is not None:
            explored = self.places.filled(recommender, ranked, *found)
        if explored is not None and any(explored.is_new):
            ranked = as_ranked(recommender, ranked, explored)
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
        new = recommender.returnable(request, self.places.new(recommender).item_ids)
        listed = recommender.items.encode(ranked.item_ids).tolist()
        pool = recommender.items.encode(new).tolist()
        pool = recommender.rules.with_room(request.rules, listed, pool, self.policy.slots)
        return self.policy.explored(listed, pool, drawn, self._rng, num_pinned(ranked))
