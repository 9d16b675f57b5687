"""Events of several strengths on the inference path: what the models read of a history."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.artifact import Artifact, Stage2, build_cross_encoder, load_artifact
from recsys.events.types import type_set
from recsys.explanations import explain
from recsys.models.history_weights import EventCounting
from recsys.recommender import Recommender
from recsys.request import Request, UserEvents
from recsys.schema import HistoryBatch
from recsys.signals.extractor import SignalExtractor
from tests.conftest import ENCODER, RANK
from tests.test_artifact import saved

LATE = 2_000_000_000
KINDS = {"view": 1.0, "purchase": 10.0}
VIEW, PURCHASE = type_set(["view"]), type_set(["purchase"])


@pytest.fixture(scope="module")
def artifact(untrained_bundle: Path) -> Artifact:
    """Every third event of the log is a purchase; both stages read strengths."""
    plain = load_artifact(untrained_bundle)
    log = plain.histories
    weights = np.where(np.arange(len(log)) % 3, 1.0, 10.0).astype(np.float32)
    weighed = replace(log, weights=weights)
    plain.two_tower.counting = EventCounting(None, 0.5)
    assert plain.stage2 is not None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_cross_encoder({**ENCODER, "strengths": True}, 1, RANK).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    relations = plain.stage2.extractor.relations
    extractor = SignalExtractor(weighed, len(plain.items), relations, 4)
    return replace(
        plain,
        manifest={**plain.manifest, "event_weights": KINDS},
        histories=weighed,
        stage2=Stage2(model, extractor, plain.stage2.reduction),
    )


@pytest.fixture(scope="module")
def recommender(artifact: Artifact) -> Recommender:
    return Recommender(artifact, stage2=True)


def history_of(recommender: Recommender, request: Request) -> HistoryBatch:
    return recommender.histories.batch([request])


def strengths(recommender: Recommender, request: Request) -> dict[object, float]:
    """By item, in units of what an event counts on average."""
    batch = history_of(recommender, request)
    assert batch.weights is not None
    assert not batch.weights[~batch.mask].any()
    items = recommender.items.decode(batch.item_idx[batch.mask].numpy())
    return dict(zip(items, batch.weights[batch.mask].tolist(), strict=True))


def live(item_ids: Sequence[int], types: Sequence[int], user: int = 104, **more) -> Request:
    times = [LATE + place for place in range(len(item_ids))]
    return Request(20, user_id=user, events=UserEvents(1, item_ids, times, types=types, **more))


def test_a_live_purchase_weighs_as_one_of_the_log(recommender: Recommender) -> None:
    logged = strengths(recommender, Request(20, user_id=104))
    purchase, view = max(logged.values()), min(logged.values())
    assert purchase == pytest.approx(10 * view)
    found = strengths(recommender, live([1020, 1021, 1022], [PURCHASE, VIEW, PURCHASE | VIEW]))
    assert [found[item] for item in (1020, 1021, 1022)] == [purchase, view, purchase]
    assert {item: found[item] for item in logged} == logged


def test_of_an_unknown_type_an_event_counts_as_a_row_without_one(recommender: Recommender) -> None:
    view = min(strengths(recommender, Request(20, user_id=104)).values())
    for types in ([type_set(["like"])], [0], []):
        assert strengths(recommender, live([1020], types))[1020] == pytest.approx(view)


def test_an_item_of_the_log_counts_no_less_when_it_comes_again(recommender: Recommender) -> None:
    logged = strengths(recommender, Request(20, user_id=104))
    bought = max(logged, key=lambda item: logged[item])
    viewed = min(logged, key=lambda item: logged[item])
    again = strengths(recommender, live([bought, viewed], [VIEW, PURCHASE]))
    assert again[bought] == again[viewed] == logged[bought]


def test_events_of_a_given_history_count_as_one_does_on_average(recommender: Recommender) -> None:
    given = Request(20, history=[1003, 1009])
    assert strengths(recommender, given) == {1003: 1.0, 1009: 1.0}
    assert strengths(recommender, replace(given, user_id=104)) == {1003: 1.0, 1009: 1.0}


def test_where_the_log_is_alike_no_weights_are_read(untrained_bundle: Path) -> None:
    plain = Recommender.load(untrained_bundle)
    plain.histories._event_weights = KINDS
    assert history_of(plain, live([1020], [PURCHASE])).weights is None


def test_what_a_user_buys_makes_another_list_than_what_is_viewed(recommender: Recommender) -> None:
    for rerank in (False, True):
        scores = [
            recommender.recommend([live([1020, 1021], types)], rerank=rerank)[0].scores.tolist()
            for types in ([PURCHASE, VIEW], [VIEW, PURCHASE], [PURCHASE, VIEW])
        ]
        assert scores[0] != scores[1]
        assert scores[0] == scores[2]


def test_lists_of_weighed_histories_are_the_same_in_any_company(recommender: Recommender) -> None:
    requests = [
        live([1020, 1021], [PURCHASE, VIEW]),
        Request(20, user_id=110),
        Request(20, history=[1003, 1009, 1001, 1002, 1004, 1006]),
        live([1005], [PURCHASE], user=7),
        live([], [], forgets_log=True),
    ]
    together = recommender.recommend(requests)
    for request, expected in zip(requests, together, strict=True):
        (alone,) = recommender.recommend([request])
        assert alone.item_ids == expected.item_ids
        assert alone.scores.tolist() == expected.scores.tolist()


def test_explanations_leave_out_an_event_with_its_weight(recommender: Recommender) -> None:
    """By hand: the score with all events minus the score without one."""
    request = live([1020, 1021], [PURCHASE, VIEW])
    (ranked,) = recommender.recommend([request], rerank=False)
    told = explain(recommender, request, ranked, num_reasons=100)
    history = history_of(recommender, request)
    length = int(history.mask.sum())

    def score(kept: list[int], item: int) -> float:
        assert history.weights is not None
        part = HistoryBatch(
            *(one[:, kept] for one in history[:3]), history.context, history.weights[:, kept]
        )
        query = recommender.retriever.encode(part)
        return float((query @ recommender.retriever.embeddings[item])[0])

    checked = 0
    for one in told[:5]:
        item = int(recommender.items.encode([one.item_id])[0])
        whole = score(list(range(length)), item)
        for reason in one.because:
            (place,) = (
                history.item_idx[0] == int(recommender.items.encode([reason.item_id])[0])
            ).nonzero()[:, 0]
            kept = [other for other in range(length) if other != int(place)]
            assert reason.contribution == pytest.approx(whole - score(kept, item), abs=1e-4)
            checked += 1
    assert checked
    # Also of lists of stage 2, and of a history of one event.
    for other in (request, live([1020], [PURCHASE], user=7)):
        (ranked,) = recommender.recommend([other])
        assert any(one.because for one in explain(recommender, other, ranked))


def test_a_bundle_keeps_what_it_was_trained_to_read(artifact: Artifact, tmp_path: Path) -> None:
    manifest = {**artifact.manifest, "cross_encoder": {**ENCODER, "strengths": True}}
    loaded = load_artifact(saved(tmp_path, artifact, manifest=manifest))
    assert loaded.two_tower.counting.strength_exponent == 0.5
    request = live([1020, 1021], [PURCHASE, VIEW])
    expected, found = (
        Recommender(one, stage2=True).recommend([request])[0] for one in (artifact, loaded)
    )
    assert found.item_ids == expected.item_ids
    np.testing.assert_allclose(found.scores, expected.scores, rtol=2e-3, atol=2e-3)
