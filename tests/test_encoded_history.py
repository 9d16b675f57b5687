"""Lists are the same with encoded histories kept and without, and memory is bounded."""

from pathlib import Path

import numpy as np
import pytest

from recsys.recommender import Recommender
from recsys.request import Request

ENTRY = 3_000
"""About the bytes of one user's encoded history with 30 items and padding."""


@pytest.fixture
def users(untrained_recommender: Recommender) -> list[int]:
    return [int(user) for user in untrained_recommender.users.ids]


@pytest.mark.parametrize("room", [0.5, 1, 7, 1000])
def test_lists_do_not_depend_on_what_is_kept(
    untrained_bundle: Path, untrained_recommender: Recommender, users: list[int], room: float
) -> None:
    recommender = Recommender.load(untrained_bundle, cache_bytes=int(room * ENTRY))
    requests = [Request(8, user_id=user) for user in [*users, *reversed(users)]]
    requests.insert(3, Request(8, history=[1001, 1004]))
    requests.insert(70, Request(8, user_id=-1))

    expected = untrained_recommender.recommend(requests)
    for one in (requests, requests[::-1], requests, requests):
        found = recommender.recommend(one)
        lists = expected if one is requests else expected[::-1]
        assert [a.item_ids for a in found] == [a.item_ids for a in lists]

    if room >= 2:
        assert min(room / 2, len(users)) <= len(recommender.cache) <= len(users)
    assert len(recommender.cache) < len(users) or room > len(users)
    assert recommender.cache.num_bytes <= room * ENTRY


def test_what_is_asked_for_often_computes_nothing_of_the_history(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = Recommender.load(untrained_bundle, cache_bytes=10**6)
    first, *others = (recommender.recommend([Request(5, user_id=101)])[0] for _ in range(9))
    for other in others:
        assert other.item_ids == first.item_ids
        assert other.scores.tolist() == first.scores.tolist()
    with monkeypatch.context() as patch:
        patch.setattr(recommender.retriever, "encode", None)
        patch.setattr(recommender.reranker, "features", None)
        assert recommender.recommend([Request(5, user_id=101)])[0].item_ids == first.item_ids
    # Another list of the same user, with other candidates.
    other = recommender.recommend([Request(5, user_id=101, exclude=first.item_ids)])[0]
    assert not set(other.item_ids) & set(first.item_ids)


def test_a_history_in_the_request_is_not_mistaken_for_the_stored_one(
    untrained_bundle: Path, untrained_recommender: Recommender
) -> None:
    recommender = Recommender.load(untrained_bundle, cache_bytes=10**6)
    recommender.recommend([Request(5, user_id=101)])
    request = Request(5, user_id=101, history=[1020, 1021])
    expected = untrained_recommender.recommend([request])[0]
    assert recommender.recommend([request])[0].item_ids == expected.item_ids


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_scores_are_the_same_to_the_bit_in_any_company(
    untrained_bundle: Path, users: list[int], size: int
) -> None:
    recommender = Recommender.load(untrained_bundle, cache_bytes=10**6)
    requests = [Request(8, user_id=user) for user in users]
    requests += [Request(8, history=[1001, 1004, 1009][:length]) for length in (1, 2, 3)]
    expected = recommender.recommend(requests)
    order = np.random.default_rng(0).permutation(len(requests))
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        for row, found in zip(
            rows, recommender.recommend([requests[r] for r in rows]), strict=True
        ):
            assert found.item_ids == expected[row].item_ids
            assert found.scores.tolist() == expected[row].scores.tolist()
