"""New items at some places of lists, and a line in the log for each list that has any."""

import logging
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys.api.models import ModelStore
from recsys.exploration import Exploration
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.rules.arranging import PIN
from recsys.schema import ExternalId, RankedList

log = logging.getLogger(__name__)

_SECONDS_PER_DAY = 86_400
_SECONDS_KEPT = 1.0


class ListExploration:
    """Explores items of the event store that were added within the last days.

    Args:
        max_days: that an item counts as new.
    """

    def __init__(self, policy: Exploration, models: ModelStore, max_days: float) -> None:
        self.policy = policy
        self.models = models
        self.max_days = max_days
        self.nothing = np.zeros(policy.slots, bool)
        self._found: tuple[Recommender, float, list[ExternalId]] | None = None
        self._rng = np.random.default_rng()

    def draw(self) -> NDArray[np.bool_]:
        """Which places are given away."""
        return self.policy.draw(self._rng)

    def _new(self, recommender: Recommender) -> list[ExternalId]:
        """All new items; looked for once a second, and whenever there are others."""
        now, found = time.time(), self._found
        if found is None or found[0] is not recommender or now - found[1] > _SECONDS_KEPT:
            new = self.models.added_since(now - self.max_days * _SECONDS_PER_DAY)
            found = self._found = (recommender, now, new)
        return found[2]

    def explored(
        self,
        recommender: Recommender,
        request: Request,
        ranked: RankedList,
        drawn: NDArray[np.bool_],
    ) -> tuple[RankedList, list[float]]:
        """The list with new items at the drawn places, and the propensities of all of its items."""
        new = recommender.returnable(request, self._new(recommender))
        listed = recommender.items.encode(ranked.item_ids).tolist()
        pool = recommender.items.encode(new).tolist()
        pool = recommender.rules.with_room(request.rules, listed, pool, self.policy.slots)
        num_pinned = sum(rule == PIN for rule in ranked.touched)
        found = self.policy.explored(listed, pool, drawn, self._rng, num_pinned)
        if any(found.is_new):
            item_ids = recommender.items.decode(np.array(found.items, np.int64))
            touched = [
                "exploration" if is_new else rule
                for is_new, rule in zip(
                    found.is_new, ranked.touched or [None] * len(listed), strict=True
                )
            ]
            ranked = replace(ranked, item_ids=item_ids, touched=touched)
            fields = {
                "user_id": request.user_id,
                "top_items": item_ids,
                "propensities": found.propensities,
            }
            log.info("exploration", extra={"fields": fields})
        return ranked, found.propensities
