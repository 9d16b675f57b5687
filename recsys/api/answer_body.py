"""What is sent of a list: made in the thread that has made the list, not in the event loop's."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys.api.batcher import Answer
from recsys.api.list_exploration import ListExploration
from recsys.api.live_state import Degraded
from recsys.api.schemas import ItemExplanation, Recommendations
from recsys.recommender import Recommender
from recsys.request import Request


class AnswerBody:
    """Makes the body of one answer.

    Args:
        degraded: what the list is made without. drawn: of exploration, where there is any.
    """

    def __init__(
        self,
        exploration: ListExploration | None,
        recommender: Recommender,
        request: Request,
        degraded: list[Degraded],
        drawn: NDArray[np.bool_] | None,
        with_titles: bool,
    ) -> None:
        self._exploration = exploration
        self._recommender = recommender
        self._request = request
        self._degraded = degraded
        self._drawn = drawn
        self._with_titles = with_titles

    def finish(self, answer: Answer) -> Answer:
        """With new items in places that were drawn for them, and with the body."""
        if self._exploration is not None and self._drawn is not None:
            ranked, propensities = self._exploration.explored(
                self._recommender, self._request, answer.ranked, answer.found, self._drawn
            )
            answer = replace(answer, ranked=ranked, propensities=propensities)
        return replace(answer, body=self._body(answer, None))

    def explained(self, answer: Answer, explanations: list[ItemExplanation] | None) -> Answer:
        """With explanations, where there was time for them."""
        if explanations is None:
            self._degraded.append("explanations")
            answer = replace(answer, fallback=answer.fallback or "deadline")
        return replace(answer, body=self._body(answer, explanations))

    def _body(self, answer: Answer, explanations: list[ItemExplanation] | None) -> bytes:
        ranked, recommender = answer.ranked, self._recommender
        sent = Recommendations.model_construct(
            user_id=self._request.user_id,
            top_items=ranked.item_ids,
            model_version=recommender.model_version,
            source=ranked.source,
            fallback=answer.fallback,
            degraded=self._degraded or None,
            notes=list(ranked.notes) or None,
            propensities=answer.propensities,
            explanations=explanations,
            titles=recommender.titles(ranked.item_ids) if self._with_titles else None,
        )
        return sent.model_dump_json(exclude_none=True).encode()
