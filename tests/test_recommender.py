"""The one inference path, on bundles with random weights: what may never happen, never happens."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.feature_store.definitions import HALF_LIFE_DAYS
from recsys.models.new_users import NewUserGate, NewUserSettings
from recsys.recommender import BATCH_SIZE, Recommender
from recsys.request import Request, UserEvents
from recsys.rules import Rules
from recsys.schema import ExternalId

KNOWN_USERS = st.integers(101, 190)
ITEMS = st.integers(1001, 1040)  # 1031 and up are unknown
REQUESTS = st.builds(
    Request,
    top_k=st.integers(1, 40),
    user_id=st.one_of(KNOWN_USERS, st.integers(900, 910), st.none()),
    history=st.one_of(st.none(), st.lists(ITEMS, max_size=12)),
    exclude=st.lists(ITEMS, max_size=12).map(tuple),
)


def history_of(recommender: Recommender, request: Request) -> set:
    if request.history is not None:
        return set(request.history)
    if request.user_id not in recommender.users:
        return set()
    user_idx = recommender.users.encode([request.user_id])
    batch = recommender.histories.log.pad(user_idx)
    return set(recommender.items.decode(batch.item_idx[batch.mask].numpy()))


@settings(max_examples=150, deadline=None)
@given(requests=st.lists(REQUESTS, min_size=1, max_size=5), rerank=st.booleans())
def test_nothing_excluded_or_seen_or_twice_and_full_where_possible(
    untrained_recommender: Recommender, requests: list[Request], rerank: bool
) -> None:
    recommender = untrained_recommender
    catalogue = set(recommender.items.ids.tolist())
    answers = recommender.recommend(requests, rerank=rerank)
    assert len(answers) == len(requests)
    for request, answer in zip(requests, answers, strict=True):
        forbidden = history_of(recommender, request) | set(request.exclude)
        assert not forbidden & set(answer.item_ids)
        assert len(set(answer.item_ids)) == len(answer.item_ids)
        allowed = len(catalogue - forbidden)
        assert len(answer.item_ids) == len(answer.scores) == min(request.top_k, allowed)
        assert (np.diff(answer.scores) <= 0).all()
        assert answer.user_id == request.user_id


@settings(max_examples=30, deadline=None)
@given(requests=st.lists(REQUESTS, min_size=2, max_size=6))
def test_answers_do_not_depend_on_the_batch(
    untrained_recommender: Recommender, requests: list[Request]
) -> None:
    together = untrained_recommender.recommend(requests)
    for request, answer in zip(requests, together, strict=True):
        (alone,) = untrained_recommender.recommend([request])
        assert alone.source == answer.source
        assert alone.item_ids == answer.item_ids
        np.testing.assert_allclose(alone.scores, answer.scores, atol=1e-5)


def test_more_requests_than_one_batch_are_answered_in_order(
    untrained_recommender: Recommender,
) -> None:
    requests = [Request(top_k=5, user_id=user_id) for user_id in range(101, 191)]
    assert len(requests) > BATCH_SIZE
    together = untrained_recommender.recommend(requests)
    for request, answer in zip(requests, together, strict=True):
        (alone,) = untrained_recommender.recommend([request])
        assert answer.user_id == request.user_id
        assert answer.item_ids == alone.item_ids


def test_a_request_for_more_than_exists_gets_what_exists(
    untrained_recommender: Recommender,
) -> None:
    (answer,) = untrained_recommender.recommend([Request(top_k=10**20, user_id=107)])
    assert len(answer.item_ids) == 30 - 4


@pytest.mark.parametrize("stranger", ["u3", "", 2**70, -1, None])
def test_an_id_of_another_kind_is_an_unknown_one(
    untrained_recommender: Recommender, stranger: ExternalId | None
) -> None:
    ids = [] if stranger is None else [stranger]
    by_user, by_history = untrained_recommender.recommend(
        [
            Request(top_k=3, user_id=stranger, exclude=ids),
            Request(top_k=3, history=[*ids, 1001], exclude=ids),
        ]
    )
    assert by_user.source == "popular"
    assert by_history.source == "reranked"
    (known_alone,) = untrained_recommender.recommend([Request(top_k=3, history=[1001])])
    assert by_history.item_ids == known_alone.item_ids


def test_one_more_of_the_same_artifact_answers_the_same(untrained_bundle: Path) -> None:
    """What the first one keeps in place of the artifact's tables serves another one as well."""
    first = Recommender.load(untrained_bundle)
    encoders = first.artifact.two_tower.encoders
    tables = {one.id_embedding.weight.untyped_storage().data_ptr() for one in encoders}
    assert first.retriever.embeddings.untyped_storage().data_ptr() in tables
    assert len(tables) == 2  # of queries and of candidates, whatever the number of towers
    requests = [Request(top_k=5, user_id=user) for user in (101, 107, 999)]
    again = Recommender(first.artifact)
    for one, other in zip(again.recommend(requests), first.recommend(requests), strict=True):
        assert one.item_ids == other.item_ids
        np.testing.assert_array_equal(one.scores, other.scores)


def test_no_requests_no_answers(untrained_recommender: Recommender) -> None:
    assert untrained_recommender.recommend([]) == []


def test_an_unknown_user_gets_the_most_popular_items(untrained_recommender: Recommender) -> None:
    (answer,) = untrained_recommender.recommend([Request(top_k=30, user_id=999)])
    log = untrained_recommender.histories.log
    days = (log.timestamps.max() - log.timestamps) / 86_400
    decayed = np.bincount(log.item_idx, 0.5 ** (days / HALF_LIFE_DAYS))
    indices = untrained_recommender.items.encode(answer.item_ids)
    assert answer.source == "popular"
    assert (np.diff(answer.scores) <= 0).all()
    np.testing.assert_allclose(answer.scores, decayed[indices], rtol=1e-6)
    assert len(set(answer.item_ids)) == 30


def test_a_history_without_known_items_is_an_unknown_user(
    untrained_recommender: Recommender,
) -> None:
    (answer,) = untrained_recommender.recommend([Request(top_k=3, history=[5, 6])])
    assert answer.source == "popular"


def test_a_given_history_retrieves_what_the_same_stored_one_does(
    untrained_recommender: Recommender,
) -> None:
    batch = untrained_recommender.histories.log.pad(untrained_recommender.users.encode([107]))
    items = untrained_recommender.items.decode(batch.item_idx[0].numpy())
    stored, given_ = untrained_recommender.recommend(
        [Request(top_k=9, user_id=107), Request(top_k=9, user_id=107, history=items)],
        rerank=False,
    )
    assert stored.item_ids == given_.item_ids
    np.testing.assert_allclose(stored.scores, given_.scores, rtol=1e-5)
    assert stored.source == "retrieved"


def test_a_known_users_attributes_count_with_a_given_history(
    untrained_recommender: Recommender,
) -> None:
    """Users 107 and 109 share their only attribute, 108 has the other, and 5 is unknown."""
    users = [107, 109, 108, 5, None]
    requests = [Request(top_k=5, user_id=user, history=[1003, 1008]) for user in users]
    same, as_well, other, unknown, nobody = (
        answer.scores for answer in untrained_recommender.recommend(requests, rerank=False)
    )
    np.testing.assert_allclose(same, as_well, rtol=1e-5)
    assert not np.allclose(same, other)
    assert not np.allclose(same, unknown)
    np.testing.assert_allclose(unknown, nobody, rtol=1e-5)


def test_stage_1_returns_the_best_dot_products(untrained_recommender: Recommender) -> None:
    recommender = untrained_recommender
    (answer,) = recommender.recommend([Request(top_k=26, user_id=107)], rerank=False)
    history = recommender.histories.log.pad(recommender.users.encode([107]))
    model = recommender.retriever.model
    query = model.query(history.item_idx, history.mask, history.context)
    scores = (query @ model.all_candidates().T)[0].detach().numpy()
    scores[history.item_idx[0].numpy()] = -np.inf
    best = np.argsort(-scores[1:], kind="stable")[:26] + 1
    assert answer.item_ids == recommender.items.decode(best)


def test_stage_2_changes_the_order_of_the_candidates_only(
    untrained_recommender: Recommender,
) -> None:
    request = [Request(top_k=12, user_id=107)]  # the fixture hands 12 candidates to stage 2
    (retrieved,) = untrained_recommender.recommend(request, rerank=False)
    (reranked,) = untrained_recommender.recommend(request)
    assert reranked.source == "reranked"
    assert set(reranked.item_ids) == set(retrieved.item_ids)


def test_string_ids(string_id_recommender: Recommender) -> None:
    (answer,) = string_id_recommender.recommend([Request(top_k=4, user_id="u3")])
    assert answer.source == "retrieved"  # that bundle has no stage 2
    assert all(item.startswith("i") for item in answer.item_ids)


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_below_one_is_refused(untrained_recommender: Recommender, top_k: int) -> None:
    with pytest.raises(InputError, match=f"top_k.* found {top_k}"):
        untrained_recommender.recommend([Request(top_k=top_k, user_id=107)])


def with_gate(recommender: Recommender, bias: float) -> Recommender:
    """The same bundle with a gate whose share of popularity is sigmoid(bias) for all new users."""
    settings = NewUserSettings(NewUserGate(bias, 0.0, 0.0), half_life_days=None)
    manifest = {**recommender.manifest, "new_users": settings.to_manifest()}
    return Recommender(replace(recommender.artifact, manifest=manifest))


def test_lists_of_new_users_are_blended_with_popularity(
    untrained_recommender: Recommender,
) -> None:
    recommender = with_gate(untrained_recommender, bias=0.5)
    request = Request(top_k=12, user_id=999, history=[1001, 1004, 1010])
    (answer,) = recommender.recommend([request])
    assert answer.source == "retrieved"

    (without,) = untrained_recommender.recommend(
        [Request(top_k=1000, history=request.history)], rerank=False
    )
    items = recommender.items.encode(without.item_ids)
    history = recommender.histories.batch([request])
    everything = recommender.retriever.encode(history) @ recommender.retriever.embeddings[1:].T
    counts = recommender.histories.log.item_counts(len(recommender.items))[1:]
    popularity = (counts - counts.mean()) / max(counts.std(), 1e-12)
    share = 1 / (1 + np.exp(-0.5))
    scale = float(everything.std()) * popularity[items - 1]
    expected = (1 - share) * without.scores + share * (float(everything.mean()) + scale)
    by_item = dict(zip(without.item_ids, expected.tolist(), strict=True))
    np.testing.assert_allclose(answer.scores, [by_item[i] for i in answer.item_ids], rtol=1e-4)
    np.testing.assert_allclose(answer.scores, np.sort(expected)[::-1][:12], rtol=1e-4)


def test_users_of_the_training_log_and_wishes_are_not_blended(
    untrained_recommender: Recommender,
) -> None:
    recommender = with_gate(untrained_recommender, bias=9.0)
    known = Request(top_k=10, user_id=107)
    attributes = Request(top_k=10, context={})
    before = untrained_recommender.recommend([known, attributes])
    after = recommender.recommend([known, attributes])
    assert [one.item_ids for one in before] == [one.item_ids for one in after]
    assert after[0].source == "reranked"


def test_with_nothing_but_popularity_the_list_is_the_popular_one(
    untrained_recommender: Recommender,
) -> None:
    recommender = with_gate(untrained_recommender, bias=40.0)
    history = [1001, 1004]
    (answer,) = recommender.recommend([Request(top_k=20, history=history)])
    (popular,) = recommender.recommend([Request(top_k=20, user_id=999, exclude=history)])
    assert popular.source == "popular"
    assert answer.item_ids == popular.item_ids


def test_an_event_in_the_future_does_not_make_popularity_fade(
    untrained_recommender: Recommender,
) -> None:
    """One row of the log is from 2096: order and counts of all other items stay."""
    artifact = untrained_recommender.artifact
    times = artifact.histories.timestamps.copy()
    late = int(times.argmax())
    times[late] = 4_000_000_000
    histories = replace(artifact.histories, timestamps=times)
    told = Recommender(replace(artifact, histories=histories))
    request = Request(top_k=1000, user_id=999)
    other = untrained_recommender.items.decode(artifact.histories.item_idx[[late]])[0]
    (before,), (after,) = untrained_recommender.recommend([request]), told.recommend([request])
    assert [i for i in before.item_ids if i != other] == [i for i in after.item_ids if i != other]
    assert told.histories.end_of_log < 2_000_000_000


def test_last_resorts_of_the_same_rules_leave_out_what_each_user_must_not_get(
    untrained_recommender,
):
    rules = [
        Rules(),
        Rules(pin=(1003, 1029), boost=(("item:1020", 50.0),)),
        Rules(caps=(("genre", 2),)),
        Rules(genres_none=("Comedy",), diversity=0.5),
        Rules(exclude_seen=False),
    ]
    requests = [
        Request(
            12, user_id=user, exclude=exclude, rules=one, events=UserEvents(1, dismissed=[1008])
        )
        for user in (101, 102, 150, 999)
        for exclude in ((), (1001, 1002))
        for one in rules
    ]
    for request, found in zip(requests, untrained_recommender.popular(requests), strict=True):
        batch = untrained_recommender.histories.batch([request])
        seen = set(batch.item_idx[batch.mask].tolist())
        listed = untrained_recommender.items.encode(found.item_ids).tolist()
        assert found.user_id == request.user_id
        assert found.source == "popular"
        assert not {1008, *request.exclude} & set(found.item_ids)
        assert len(set(listed)) == len(listed) == len(found.scores)
        assert not (request.rules.exclude_seen and seen & set(listed))
        table = untrained_recommender.rules.table
        genres = Counter(name for item in listed for name in table.values("genre", item))
        if request.rules.caps:
            assert max(genres.values()) <= 2
        else:
            assert len(listed) == 12
        if request.rules.genres_none:
            assert not genres["Comedy"]
        if request.rules.pin and not seen & {3, 29}:
            assert found.item_ids[:2] == [1003, 1029]
            assert found.touched[:2] == ["pin", "pin"]
        (alone,) = untrained_recommender.popular([request])
        if not request.rules.arranges:
            assert alone.item_ids == found.item_ids


def test_caps_that_others_have_used_up_leave_no_last_resort_empty(untrained_recommender):
    # The first item of each genre is the list of all who share these rules.
    rules = Rules(caps=(("genre", 1),))
    (shared,) = untrained_recommender.popular([Request(30, rules=rules)])
    (found,) = untrained_recommender.popular([Request(30, exclude=shared.item_ids, rules=rules)])
    assert found.item_ids
    assert not set(found.item_ids) & set(shared.item_ids)
