"""New items in lists, by the object that puts them there."""

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from recsys.api.list_exploration import ListExploration
from recsys.exploration import Exploration, ReservedPlaces
from recsys.recommender import Recommender
from recsys.request import Request, UserEvents
from recsys.rules import Rules
from recsys.schema import RankedList

# The log of the bundle is of 2001.
SINCE_BEFORE_THE_LOG = 20_000
NEW = [1021, 1023, 1025, 1027, 1029]
LISTED = list(range(1001, 1021))


class Store:
    """Stands in for a ``ModelStore``: items, all added just now."""

    def __init__(self, item_ids: list[int]) -> None:
        self.added = dict.fromkeys(item_ids, time.time())
        self.asked = 0

    def added_since(self, since: float) -> dict[int, float]:
        self.asked += 1
        return {item: at for item, at in self.added.items() if at >= since}


def exploration(
    new: "list[int] | Store" = NEW,
    places: tuple[int, ...] = (11, 14, 17),
    epsilon: float = 0.0,
    days: float = SINCE_BEFORE_THE_LOG,
) -> ListExploration:
    return ListExploration(
        Exploration(epsilon, 1),
        ReservedPlaces(places),
        new if isinstance(new, Store) else Store(new),
        days,  # type: ignore[arg-type]
    )


def listed(**fields: Any) -> RankedList:
    scores = np.linspace(3, 1, len(LISTED), dtype=np.float32)
    return RankedList(None, LISTED, scores, "reranked", **fields)


def explored(
    recommender: Recommender,
    request: Request,
    ranked: RankedList,
    one: ListExploration | None = None,
) -> tuple[RankedList, list[float] | None]:
    one = one or exploration()
    found = recommender.retrieve([request]), 0
    return one.explored(recommender, request, ranked, found, one.draw(request))


def best(recommender: Recommender, request: Request, item_ids: list[int]) -> list[int]:
    query = recommender.retrieve([request]).encoded.queries[0]
    items = recommender.items.encode(item_ids)
    scores = recommender.retriever.embeddings.numpy()[items] @ query
    return [item_ids[row] for row in np.argsort(-scores)]


def test_the_best_by_stage_1_get_the_places(untrained_recommender: Recommender) -> None:
    request = Request(top_k=20, history=[1002])
    ranked, propensities = explored(untrained_recommender, request, listed())
    first, second, third, *_ = best(untrained_recommender, request, NEW)
    expected = [*LISTED[:10], first, *LISTED[10:12], second, *LISTED[12:14], third]
    assert ranked.item_ids == [*expected, *LISTED[14:17]]
    assert propensities == [1.0] * 20
    assert [place for place, one in enumerate(ranked.touched, 1) if one] == [11, 14, 17]
    assert set(ranked.touched) == {None, "exploration"}
    assert (np.diff(ranked.scores) <= 0).all()
    by_item = dict(zip(LISTED, listed().scores.tolist(), strict=True))
    for item, score in zip(ranked.item_ids, ranked.scores.tolist(), strict=True):
        assert score == by_item.get(item, score)


def test_no_list_has_what_its_request_excludes(untrained_recommender: Recommender) -> None:
    events = UserEvents(version=1, dismissed=[1023])
    rules = Rules(block=(1025,))
    request = Request(top_k=20, history=[1021], events=events, rules=rules, exclude=[1027])
    ranked, _ = explored(untrained_recommender, request, listed())
    assert set(ranked.item_ids) - set(LISTED) == {1029}
    assert ranked.item_ids[10] == 1029


def test_pins_and_caps_are_kept(untrained_recommender: Recommender) -> None:
    request = Request(top_k=20, history=[1002])
    pinned = listed(touched=["pin"] * 12 + [None] * 8)
    ranked, _ = explored(untrained_recommender, request, pinned)
    assert ranked.item_ids[:13] == LISTED[:13]
    assert [place for place, one in enumerate(ranked.touched, 1) if one == "exploration"] == [
        14,
        17,
    ]
    # Titles of every third item are of the same genre: of 20 seven are, with one to leave the list.
    table = untrained_recommender.rules.table
    encode = untrained_recommender.items.encode
    for cap in (6, 7, 8):
        capped = Request(top_k=20, history=[1002], rules=Rules(caps=(("genre", cap),)))
        ranked, _ = explored(untrained_recommender, capped, listed())
        genres = [table.values("genre", item) for item in encode(ranked.item_ids).tolist()]
        new = set(ranked.item_ids) - set(LISTED)
        for item in encode(new).tolist():
            for genre in table.values("genre", item):
                assert sum(genre in one for one in genres) <= cap
        assert bool(new) == (cap > 6)


@pytest.mark.parametrize(
    ("top_k", "places", "text"), [(19, (11,), False), (20, (), False), (20, (11,), True)]
)
def test_other_lists_stay_as_they_are(
    untrained_recommender: Recommender, top_k: int, places: tuple[int, ...], text: bool
) -> None:
    vector = np.ones(6, np.float32) if text else None
    request = Request(top_k=top_k, history=[1002], text_vector=vector)
    one = exploration(places=places)
    ranked, propensities = explored(untrained_recommender, request, listed(), one)
    assert ranked.item_ids == LISTED
    assert propensities is None


def test_a_list_that_stage_1_had_no_time_for_stays_as_it_is(
    untrained_recommender: Recommender,
) -> None:
    one, request = exploration(), Request(top_k=20, history=[1002])
    found = one.explored(untrained_recommender, request, listed(), None, one.nothing)
    assert found[0].item_ids == LISTED


def test_lists_without_reserved_places_are_left_to_chance(
    untrained_recommender: Recommender,
) -> None:
    one = exploration(epsilon=0.9)
    short, long = Request(top_k=10, history=[1002]), Request(top_k=20, history=[1002])
    assert one.leaves_to_chance(untrained_recommender, short)
    assert not one.leaves_to_chance(untrained_recommender, long)
    assert not any(one.draw(long).any() for _ in range(50))
    assert any(one.draw(short).any() for _ in range(50))
    assert exploration(places=(), epsilon=0.9).leaves_to_chance(untrained_recommender, long)
    assert not exploration().leaves_to_chance(untrained_recommender, short)
    assert not exploration([], epsilon=0.9).leaves_to_chance(untrained_recommender, short)


def test_what_the_model_has_older_events_of_is_not_new(
    untrained_recommender: Recommender,
) -> None:
    assert exploration().num_new(untrained_recommender) == len(NEW)
    assert exploration(days=14).num_new(untrained_recommender) == 0
    # Unknown to the model so far, as one that is about to be taken in.
    assert exploration([9999], days=14).num_new(untrained_recommender) == 1


def test_items_are_new_for_so_many_days(
    untrained_recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, now = Store([7001, 7002]), time.time()
    one = exploration(store, days=2)
    store.added = {7001: now - 1.5 * 86_400, 7002: now}
    for days, number in ((0, 2), (0.4, 2), (0.6, 1), (1.9, 1), (2.1, 0)):
        clock = SimpleNamespace(time=lambda days=days: now + days * 86_400)
        monkeypatch.setattr("recsys.new_item_places.time", clock)
        assert one.num_new(untrained_recommender) == number
    assert store.asked == 3  # once more whenever one is new no more
