"""From ranked candidates to the lists that are returned."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from recsys.candidate_search import CandidateSearch
from recsys.data.vocabulary import Vocabulary
from recsys.index import Exclusion
from recsys.list_rules import MOST_ARRANGED, ListRules, RankedItems
from recsys.popularity import Popularity
from recsys.request import Request
from recsys.retrieved import IsLate, Retrieved, never_late
from recsys.rules import Rules
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
        has_events = retrieved.encoded.history.mask.any(dim=1).tolist()
        answers: list[RankedList] = []
        for row, (request, start, end) in enumerate(
            zip(retrieved.requests, [0, *ends], ends, strict=False)
        ):
            excluded = retrieved.excluded[row]
            late = request.rules.takes_long and is_late(row)
            if not (has_events[row] or _tells_a_taste(request)):
                answers += (
                    self.last_resorts([request], [excluded.items])
                    if late
                    else [self.popular(request, excluded)]
                )
            elif request.rules.arranges or end - start < request.top_k:
                own = slice(0, end - start)
                candidates = RankedItems(item_idx[row, own], scores[row, own])
                everything = partial(
                    self.search.everything, retrieved.encoded.queries[row], excluded
                )
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

    def popular(self, request: Request, excluded: Exclusion) -> RankedList:
        """The most popular items."""
        is_excluded = np.zeros(len(self.items) + 1, bool)
        is_excluded[excluded.items] = True
        number = MOST_ARRANGED if request.rules.arranges else request.top_k
        candidates = self._popular(request.rules, is_excluded, number)
        return self._list(request, candidates, "popular", None, diversify=True)

    def last_resorts(
        self, requests: Sequence[Request], excluded: Sequence[NDArray[np.int64]]
    ) -> list[RankedList]:
        """The most popular items, for requests that have waited too long already.

        Requests with the same rules share one list, which each gets without what it must not have.
        It is not diversified, and where caps leave little of it, a list may be short.

        Args:
            excluded: int64 items that each must not get, besides what its rules leave out.
        """
        groups: dict[tuple[Rules, int], list[int]] = {}
        for row, request in enumerate(requests):
            groups.setdefault((request.rules, request.top_k), []).append(row)
        answers: dict[int, RankedList] = {}
        for (rules, top_k), rows in groups.items():
            mask = self.rules.mask(rules)
            is_excluded = np.zeros(len(self.items) + 1, bool) if mask is None else ~mask
            widest = top_k + max(len(excluded[row]) for row in rows)
            number = min(max(widest, num_to_choose_from(top_k)), MOST_ARRANGED)
            candidates = self._popular(rules, is_excluded, number)
            wide = replace(requests[rows[0]], top_k=number)
            shared = self._list(wide, candidates, "popular", None, diversify=False)
            item_idx = self.items.encode(shared.item_ids)
            for row in rows:
                answers[row] = self._without(requests[row], shared, item_idx, excluded[row])
                if not answers[row].item_ids and rules.caps:  # others may still be within them
                    own = is_excluded.copy()
                    own[excluded[row]] = True
                    left = self._popular(rules, own, num_to_choose_from(top_k))
                    answers[row] = self._list(requests[row], left, "popular", None, diversify=False)
        return [answers[row] for row in range(len(requests))]

    def _without(
        self,
        request: Request,
        shared: RankedList,
        item_idx: NDArray[np.int64],
        excluded: NDArray[np.int64],
    ) -> RankedList:
        kept = np.flatnonzero(~np.isin(item_idx, excluded))[: request.top_k]
        places = kept.tolist()
        return RankedList(
            request.user_id,
            [shared.item_ids[place] for place in places],
            shared.scores[kept],
            shared.source,
            [shared.touched[place] for place in places] if shared.touched else (),
            self.rules.notes(request, len(kept), is_capped=bool(request.rules.caps)),
        )

    def _popular(self, rules: Rules, is_excluded: NDArray[np.bool_], number: int) -> RankedItems:
        """The first ``number`` items that are not excluded, and those that rules name."""
        items, scores = self.popularity.ranked(len(self.items))
        found = _allowed(items, is_excluded, number)
        named = self.rules.named(rules).wanted if rules.arranges else np.zeros(0, np.int64)
        if len(named):
            missing = np.isin(items, named[~is_excluded[named]])
            missing[found] = False
            found = np.append(found, np.flatnonzero(missing))
        return RankedItems(items[found], scores[found])

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
    items: NDArray[np.int64], is_excluded: NDArray[np.bool_], number: int
) -> NDArray[np.int64]:
    """Positions of the first ``number`` of all items [N] that are not excluded."""
    # Most often a short look is enough, and a catalogue may be long.
    width = 4 * number
    while True:
        found = np.flatnonzero(~is_excluded[items[:width]])[:number]
        if len(found) == number or width >= len(items):
            return found
        width *= 4


def _tells_a_taste(request: Request) -> bool:
    """Whether anything but a history is known that a list could be made of."""
    return request.context is not None or request.text_vector is not None
