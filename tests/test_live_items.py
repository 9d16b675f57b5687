"""Items, events and wishes that training has not met, on a bundle with random weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recsys.artifact import load_artifact
from recsys.errors import InputError
from recsys.explanations import explain
from recsys.recommender import Recommender
from recsys.request import Request, UserEvents
from recsys.rules import Rules

NEW = [2001, 2002, 2003]
LATE = 1_900_000_000


def frame_of(item_ids: Sequence[int | str], title: str = "New film") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "item_id": item_ids,
            "title": [f"{title} {item}" for item in item_ids],
            "genres": "Drama",
            "year": 1990,
        }
    )


def texts_of(number: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(number, 6)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def recommender(untrained_bundle: Path) -> Recommender:
    return Recommender.load(untrained_bundle)


def everything(recommender: Recommender, request: Request) -> list:
    return recommender.recommend([request])[0].item_ids


def test_new_items_are_recommended_and_the_older_recommender_goes_on(
    recommender: Recommender,
) -> None:
    request = Request(100, user_id=101)
    before = everything(recommender, request)
    more = recommender.with_items(frame_of(NEW), texts_of(3))
    assert set(everything(more, request)) == {*before, *NEW}
    assert everything(recommender, request) == before
    assert more.titles([2002, 1001]) == ["New film 2002", "Film 1001"]
    assert everything(more, Request(100))[-3:] == sorted(
        NEW, key=everything(more, Request(100)).index
    )


def test_an_item_with_the_content_of_another_lies_where_content_would_put_that_one(
    recommender: Recommender,
) -> None:
    artifact = recommender.artifact
    rows = artifact.item_frame.iloc[[4, 11]].assign(item_id=NEW[:2])
    more = recommender.with_items(rows, artifact.text[[5, 12]].numpy())
    content = torch.cat([artifact.text, artifact.attributes], dim=1)[[5, 12]]
    assert artifact.two_tower.content_map is not None
    vectors = artifact.two_tower.content_map(content)
    _, candidates = torch.split(vectors, artifact.two_tower.vector_dims, dim=1)
    torch.testing.assert_close(more.retriever.embeddings[-2:], candidates)


def test_it_makes_no_difference_whether_items_come_one_by_one_or_together(
    recommender: Recommender,
) -> None:
    together = recommender.with_items(frame_of(NEW), texts_of(3))
    one_by_one = recommender
    for row in range(3):
        one_by_one = one_by_one.with_items(frame_of(NEW[row : row + 1]), texts_of(3)[row : row + 1])
    requests = [Request(40, user_id=user) for user in range(101, 190)]
    requests += [
        Request(40, history=[2001, 1003, 2003]),
        Request(40, text_vector=texts_of(1, 5)[0]),
    ]
    for one, other in zip(
        together.recommend(requests), one_by_one.recommend(requests), strict=True
    ):
        assert one.item_ids == other.item_ids
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_new_items_count_as_history(recommender: Recommender) -> None:
    more = recommender.with_items(frame_of(NEW), texts_of(3))
    (alone,) = more.recommend([Request(10, history=[2001])])
    assert alone.source == "reranked"
    assert 2001 not in alone.item_ids
    assert alone.item_ids != everything(more, Request(10, history=[2002]))


def test_an_item_put_again_takes_the_place_of_its_former_self(recommender: Recommender) -> None:
    first = recommender.with_items(frame_of(NEW), texts_of(3))
    request = Request(40, history=[2002, 1004])
    old = first.recommend([request])[0]
    again = first.with_items(frame_of([2002], "Other"), texts_of(1, seed=9))
    direct = recommender.with_items(
        pd.concat([frame_of([2001]), frame_of([2002], "Other"), frame_of([2003])]),
        np.concatenate([texts_of(3)[:1], texts_of(1, seed=9), texts_of(3)[2:]]),
    )
    expected = direct.recommend([request])[0]
    found = again.recommend([request])[0]
    assert found.item_ids == expected.item_ids
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert not np.allclose(found.scores, old.scores, atol=1e-4)
    assert again.titles([2002]) == ["Other 2002"]


def test_an_item_of_the_training_data_keeps_its_vectors(recommender: Recommender) -> None:
    changed = recommender.with_items(frame_of([1005], "Renamed"), texts_of(1))
    assert changed.titles([1005]) == ["Renamed 1005"]
    assert recommender.titles([1005]) == ["Film 1005"]
    request = Request(30, user_id=120)
    assert everything(changed, request) == everything(recommender, request)


def test_ids_of_another_type_are_refused(recommender: Recommender) -> None:
    with pytest.raises(ValueError, match="ids must be int"):
        recommender.with_items(frame_of(["2001"]), texts_of(1))


# Events since training


def events_of(*item_ids: int, times: Sequence[int] = (), version: int = 1, **more) -> UserEvents:
    return UserEvents(version, item_ids, times or [LATE] * len(item_ids), **more)


def test_events_add_to_the_log(recommender: Recommender) -> None:
    batch = recommender.histories.batch([Request(1, user_id=104)])
    had = batch.item_idx[batch.mask].numpy()
    request = Request(40, user_id=104, events=events_of(1020, 1021))
    assert set(everything(recommender, request)) == set(
        everything(recommender, Request(40, user_id=104))
    ) - {1020, 1021}
    history = recommender.histories.batch([request])
    items = history.item_idx[history.mask].numpy()
    assert recommender.items.decode(items)[-2:] == [1020, 1021]
    assert set(items) > set(had)


def test_a_user_unknown_in_training_is_known_by_events(recommender: Recommender) -> None:
    (by_events,) = recommender.recommend([Request(10, user_id=7, events=events_of(1003, 1009))])
    (by_history,) = recommender.recommend([Request(10, history=[1003, 1009])])
    assert by_events.source == "reranked"
    assert by_events.item_ids == by_history.item_ids


def test_an_event_moves_an_item_of_the_log_to_the_end(recommender: Recommender) -> None:
    history = recommender.histories.batch([Request(5, user_id=104)])
    first = int(history.item_idx[0, 0])
    again = events_of(*recommender.items.decode(np.array([first])))
    merged = recommender.histories.batch([Request(5, user_id=104, events=again)])
    assert merged.item_idx[0].tolist() == [*history.item_idx[0, 1:].tolist(), first]


def test_events_of_the_past_lie_in_time_order(recommender: Recommender) -> None:
    history = recommender.histories.batch([Request(5, user_id=104)])
    between = int(history.timestamps[0, 1]) + 1
    request = Request(5, user_id=104, events=events_of(1025, times=[between]))
    merged = recommender.histories.batch([request])
    assert recommender.items.decode(merged.item_idx[0].numpy())[2] == 1025
    assert (merged.timestamps[0].diff() >= 0).all()


def test_a_new_version_of_events_is_used_at_once_and_an_old_one_not_kept(
    untrained_recommender: Recommender, recommender: Recommender
) -> None:
    for version, items in ((1, [1020]), (2, [1020, 1021]), (3, []), (2, [1020, 1021])):
        request = Request(12, user_id=104, events=events_of(*items, version=version))
        expected = everything(untrained_recommender, request)
        assert everything(recommender, request) == expected
        assert everything(recommender, request) == expected


def test_dismissed_items_are_left_out_and_tell_no_taste(recommender: Recommender) -> None:
    before = everything(recommender, Request(40, user_id=104))
    dismissed = UserEvents(3, dismissed=before[:2])
    found = everything(recommender, Request(40, user_id=104, events=dismissed))
    assert set(found) == set(before) - set(before[:2])
    batch = recommender.histories.batch([Request(40, user_id=104, events=dismissed)])
    assert batch.mask.sum() == 4


def test_a_forgotten_user_is_like_one_never_met(recommender: Recommender) -> None:
    gone = UserEvents(5, forgets_log=True)
    (forgotten,) = recommender.recommend([Request(30, user_id=104, events=gone)])
    (unknown,) = recommender.recommend([Request(30, user_id=-1)])
    assert forgotten.source == "popular"
    assert forgotten.item_ids == unknown.item_ids
    back = UserEvents(6, [1003, 1009], [LATE, LATE], forgets_log=True)
    (returned,) = recommender.recommend([Request(10, user_id=104, events=back)])
    assert returned.item_ids == everything(recommender, Request(10, history=[1003, 1009]))


# Context and wishes


def test_context_alone_makes_a_list(recommender: Recommender) -> None:
    young, old = (Request(20, context={"age": age}) for age in (20, 50))
    (first,) = recommender.recommend([young])
    assert first.source == "reranked"
    assert first.scores.tolist() != recommender.recommend([old])[0].scores.tolist()
    # Between two ranges: the nearest.
    (near,) = recommender.recommend([Request(20, context={"age": 30.2})])
    assert near.item_ids == first.item_ids


@pytest.mark.parametrize("context", [{"height": 3}, {"age": "old"}, {"age": float("nan")}])
def test_context_that_the_model_does_not_know_is_refused(
    recommender: Recommender, context: dict
) -> None:
    with pytest.raises(InputError):
        recommender.recommend([Request(5, context=context)])


def test_a_text_finds_the_item_that_it_describes(untrained_bundle: Path) -> None:
    artifact = load_artifact(untrained_bundle)
    recommender = Recommender(artifact)
    ranks = []
    for item in range(1, 31):
        request = Request(30, text_vector=artifact.text[item].numpy())
        (found,) = recommender.recommend([request])
        assert found.source == "retrieved"
        assert len(found.item_ids) == 30
        ranks.append(found.item_ids.index(1000 + item))
    # The towers have random weights: only the likeness of texts can bring an item to the top.
    assert np.mean(np.array(ranks) < 3) > 0.4


def test_a_text_joins_the_history(recommender: Recommender) -> None:
    wish = texts_of(1, seed=3)[0]
    found = everything(recommender, Request(40, user_id=104, text_vector=wish))
    assert set(found) == set(everything(recommender, Request(40, user_id=104)))
    assert found != everything(recommender, Request(40, user_id=150, text_vector=wish))
    # It is not mistaken for what is kept of the user.
    plain = everything(recommender, Request(10, user_id=104))
    assert everything(recommender, Request(10, user_id=104)) == plain


# One state per user and item


def test_a_dismissed_item_of_the_log_is_no_taste(recommender: Recommender) -> None:
    history = recommender.histories.batch([Request(5, user_id=104)])
    first, *others = recommender.items.decode(history.item_idx[0].numpy())
    gone = UserEvents(2, dismissed=[first], dismissed_at=[LATE])
    left = recommender.histories.batch([Request(5, user_id=104, events=gone)])
    assert recommender.items.decode(left.item_idx[left.mask].numpy()) == others
    request = Request(40, user_id=104, events=gone)
    assert first not in everything(recommender, request)
    reasons = {
        reason.item_id
        for one in explain(recommender, request, recommender.recommend([request])[0])
        for reason in one.because
    }
    assert reasons
    assert first not in reasons
    # What the log knows of later than that counts again.
    before = int(history.timestamps[0, 0]) - 1
    again = UserEvents(3, dismissed=[first], dismissed_at=[before])
    kept = recommender.histories.batch([Request(5, user_id=104, events=again)])
    assert kept.item_idx.tolist() == history.item_idx.tolist()


def test_a_user_who_has_dismissed_everything_gets_popular_items(recommender: Recommender) -> None:
    history = recommender.histories.batch([Request(5, user_id=104)])
    all_of_it = recommender.items.decode(history.item_idx[0].numpy())
    request = Request(40, user_id=104, events=UserEvents(2, dismissed=all_of_it))
    (found,) = recommender.recommend([request])
    assert found.source == "popular" or recommender.histories.log.context.shape[1]
    assert not set(found.item_ids) & set(all_of_it)


def test_what_was_had_long_ago_is_not_recommended_again(recommender: Recommender) -> None:
    before = everything(recommender, Request(40, user_id=104))
    old = UserEvents(4, older=before[:3])
    request = Request(40, user_id=104, events=old)
    assert everything(recommender, request) == [one for one in before if one not in before[:3]]
    assert not set(before[:3]) & set(recommender.popular([request])[0].item_ids)
    assert recommender.returnable(request, before[:4]) == [before[3]]
    all_again = Request(40, user_id=104, events=old, rules=Rules(exclude_seen=False))
    assert set(before[:3]) <= set(everything(recommender, all_again))


def test_an_event_counts_as_soon_as_its_item_is_there(recommender: Recommender) -> None:
    for user in (104, 7):
        request = Request(40, user_id=user, events=events_of(1020, 2001))
        everything(recommender, request)  # is kept in memory
        more = recommender.with_items(frame_of(NEW), texts_of(3))
        found = everything(more, request)
        assert 2001 not in found
        fresh = Recommender(recommender.artifact).with_items(frame_of(NEW), texts_of(3))
        assert found == everything(fresh, request)


def test_a_repeated_item_of_a_history_counts_where_it_is_last(recommender: Recommender) -> None:
    once = recommender.recommend([Request(10, history=[1003, 1009, 1012])])[0]
    for history in (
        [1003] * 40 + [1009, 1012],
        [1003, 1012, 1009, 1012],
        [1003, 1009, 1012, 1012],
    ):
        (found,) = recommender.recommend([Request(10, history=history)])
        assert found.item_ids == once.item_ids
        assert found.scores.tolist() == once.scores.tolist()
