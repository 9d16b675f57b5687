"""Rules within recommendations, on a bundle with random weights: what is returned passes."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.recommender import Recommender
from recsys.request import Request
from recsys.rules import Rules
from tests.rules.test_rules import filters, passes
from tests.test_live_items import frame_of, texts_of

IDS = st.integers(995, 1040)
FILTERS = filters(
    IDS,
    ["Drama", "Comedy", "War", "Opera"],
    1989,
    exclude_seen=st.booleans(),
    pin=st.lists(IDS, max_size=2).map(tuple),
    diversity=st.sampled_from([0.0, 0.0, 0.5]),
)
REQUESTS = st.builds(
    Request,
    top_k=st.integers(1, 40),
    user_id=st.integers(101, 190) | st.just(-1),
    history=st.none() | st.lists(IDS, max_size=12),
    exclude=st.lists(IDS, max_size=6).map(tuple),
    rules=FILTERS,
)


@pytest.fixture(scope="module")
def recommender(untrained_recommender: Recommender) -> Recommender:
    """With items that came in later among the others."""
    return untrained_recommender.with_items(frame_of([1031, 1032, 1033]), texts_of(3))


def catalogue(recommender: Recommender) -> pd.DataFrame:
    base = recommender.artifact.item_frame
    return pd.concat([base, frame_of([1031, 1032, 1033])], ignore_index=True)


@settings(max_examples=1000, deadline=None)
@given(request=REQUESTS, rerank=st.booleans())
def test_what_is_returned_passes_and_lists_are_full_where_enough_passes(
    recommender: Recommender, request: Request, rerank: bool
) -> None:
    (found,) = recommender.recommend([request], rerank=rerank)
    frame = catalogue(recommender)
    allowed = {row["item_id"] for _, row in frame.iterrows() if passes(row, request.rules)}
    allowed -= set(request.exclude)
    if request.rules.exclude_seen:
        batch = recommender.histories.batch([request])
        seen = batch.item_idx[batch.mask].numpy()
        allowed -= set(recommender.items.decode(seen))
    assert set(found.item_ids) <= allowed
    assert len(set(found.item_ids)) == len(found.item_ids) == min(request.top_k, len(allowed))
    assert bool(found.notes) == (len(found.item_ids) < request.top_k)
    pins = [pin for pin in dict.fromkeys(request.rules.pin) if pin in allowed]
    assert found.item_ids[: len(pins)] == pins[: request.top_k]


@settings(max_examples=100, deadline=None)
@given(requests=st.lists(REQUESTS, min_size=2, max_size=6), rerank=st.booleans())
def test_rules_do_not_reach_the_others_of_a_batch(
    recommender: Recommender, requests: list[Request], rerank: bool
) -> None:
    answers = recommender.recommend(requests, rerank=rerank)
    for request, together in zip(requests, answers, strict=True):
        (alone,) = recommender.recommend([request], rerank=rerank)
        assert together.item_ids == alone.item_ids
        assert together.touched == alone.touched


@pytest.mark.parametrize("rerank", [True, False])
def test_no_pin_takes_the_place_of_another(recommender: Recommender, rerank: bool) -> None:
    pairs = [(a, b) for a in range(1001, 1034) for b in range(1001, 1034) if len({a, b, 1017}) == 3]
    for top_k in (2, 12, 28):
        requests = [Request(top_k, history=[1017], rules=Rules(pin=pair)) for pair in pairs]
        lists = recommender.recommend(requests, rerank=rerank)
        assert [tuple(one.item_ids[:2]) for one in lists] == pairs


def test_stage_1_alone_has_more_than_it_returns_to_choose_from(recommender: Recommender) -> None:
    request = Request(3, user_id=104, rules=Rules(diversity=1.0))
    (diverse,) = recommender.recommend([request], rerank=False)
    (plain,) = recommender.recommend([Request(3, user_id=104)], rerank=False)
    assert set(diverse.item_ids) != set(plain.item_ids)


def test_caps_look_beyond_the_candidates_before_a_list_is_short(recommender: Recommender) -> None:
    # 12 candidates of 33 items, and a third of all has each year's decade.
    request = Request(6, user_id=104, rules=Rules(caps=(("decade", 3),)))
    (found,) = recommender.recommend([request])
    assert len(found.item_ids) == 6
    years = catalogue(recommender).set_index("item_id")["year"][found.item_ids]
    assert (years // 10).value_counts().max() == 3
    assert not found.notes


def test_a_list_that_caps_leave_short_says_so(recommender: Recommender) -> None:
    (found,) = recommender.recommend([Request(9, user_id=104, rules=Rules(caps=(("decade", 1),)))])
    assert len(found.item_ids) == 2
    assert found.notes == ["2 of 9 items: at most 1 per decade"]


def test_a_genre_that_no_item_has_is_named(recommender: Recommender) -> None:
    (found,) = recommender.recommend([Request(3, user_id=104, rules=Rules(genres_any=("Opera",)))])
    assert found.item_ids == []
    assert "no item has the genre 'Opera'" in found.notes


def test_seen_items_come_back_where_rules_allow_it(recommender: Recommender) -> None:
    (found,) = recommender.recommend([Request(40, user_id=104, rules=Rules(exclude_seen=False))])
    assert len(found.item_ids) == 33
