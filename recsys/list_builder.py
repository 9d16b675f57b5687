"""From ranked candidates to the lists that are returned."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from recsys.candidate_search import CandidateSearch
from recsys.data.vocabulary import Vocabulary
from recsys.encoded_history import EncodedHistory
from recsys.index import Exclusion
from recsys.list_rules import MOST_ARRANGED, ListRules, RankedItems
from recsys.popularity import Popularity
from recsys.request import Request
from recsys.retrieved import IsLate, Retrieved, never_late
from recsys.rules.arranging import num_to_choose_from
from recsys.schema import RankedList, Source


class ListBuilder:
    """Applies what requests ask of a list besides its scores.

    Args:
        items: vocabulary of the catalogue. rules, search: of the same items. popularity: the last
            resort.
    """

    def __init__(
        self, items: Vocabulary, rules: ListRules, search: CandidateSearch, popularity: Popularity
    ) -> None:
        self.items = items
        self.rules = rules
        self.search = search
        self.popularity = popularity

    def lists(
        self,
        retrieved: Retrieved,
        item_idx: NDArray[np.int64],
        scores: NDArray[np.float32],
        sources: Sequence[Source],
        is_late: IsLate = never_late,
    ) -> list[RankedList]:
        """A list per request.

        Args:
            item_idx, scores: [B, K], best first, 0 = none and last. sources: of each list, unless
                nothing tells a taste. is_late: asked of lists that take long, see
                ``Rules.takes_long``.
        """
        real = item_idx > 0
        ends = real.sum(axis=1).cumsum().tolist()
        item_ids = self.items.decode(item_idx[real])
        answers: list[RankedList] = []
        for row, (request, start, end) in enumerate(
            zip(retrieved.requests, [0, *ends], ends, strict=False)
        ):
            history, excluded = retrieved.histories[row], retrieved.excluded[row]
            late = request.rules.takes_long and is_late(row)
            if not _tells_a_taste(request, history):
                answers.append(self.popular(request, excluded, is_late=late))
            elif request.rules.arranges or end - start < request.top_k:
                own = slice(0, end - start)
                candidates = RankedItems(item_idx[row, own], scores[row, own])
                everything = partial(self.search.everything, history.query, excluded)
                answers.append(
                    self._list(
                        request,
                        candidates,
                        sources[row],
                        None if late else everything,
                        diversify=not late,
                    )
                )
            else:
                found = item_ids[start:end][: request.top_k]
                answers.append(
                    RankedList(request.user_id, found, scores[row, : len(found)], sources[row])
                )
        return answers

    def popular(self, request: Request, excluded: Exclusion, *, is_late: bool) -> RankedList:
        """The most popular items.

        Args:
            is_late: whether to leave out what takes long.
        """
        items, scores = self.popularity.ranked(len(self.items))
        number = request.top_k
        if request.rules.arranges:
            number = num_to_choose_from(request.top_k) if is_late else MOST_ARRANGED
        found = _allowed(items, excluded.items, number)
        if request.rules.arranges:
            named = self.rules.named(request.rules)
            missing = np.isin(items, named[~np.isin(named, excluded.items)])
            missing[found] = False
            found = np.append(found, np.flatnonzero(missing))
        candidates = RankedItems(items[found], scores[found])
        return self._list(request, candidates, "popular", None, diversify=not is_late)

    def _list(
        self,
        request: Request,
        candidates: RankedItems,
        source: Source,
        everything: Callable[[], RankedItems] | None,
        *,
        diversify: bool,
    ) -> RankedList:
        """A list that rules may arrange, or that may be short."""
        touched: Sequence[str | None] = ()
        is_capped = False
        item_idx, scores = candidates.item_idx[: request.top_k], candidates.scores[: request.top_k]
        if request.rules.arranges:
            arranged = self.rules.arranged(request, candidates, everything, diversify=diversify)
            item_idx, scores, touched = arranged.item_idx, arranged.scores, arranged.touched
            is_capped = arranged.is_capped
        return RankedList(
            request.user_id,
            self.items.decode(item_idx),
            scores,
            source,
            touched,
            self.rules.notes(request, len(item_idx), is_capped=is_capped),
        )


def _allowed(
    items: NDArray[np.int64], excluded: NDArray[np.int64], number: int
) -> NDArray[np.int64]:
    """Positions of the first ``number`` of all items [N] that are not excluded."""
    is_excluded = np.zeros(len(items) + 1, bool)
    is_excluded[excluded] = True
    # Most often a short look is enough, and a catalogue may be long.
    width = 4 * number
    while True:
        found = np.flatnonzero(~is_excluded[items[:width]])[:number]
        if len(found) == number or width >= len(items):
            return found
        width *= 4


def _tells_a_taste(request: Request, history: EncodedHistory) -> bool:
    """Whether anything is known that a list could be made of."""
    has_more = request.context is not None or request.text_vector is not None
    return has_more or len(history.seen.items) > 0
