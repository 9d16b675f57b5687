"""Explanations within a deadline."""

import asyncio
import threading

import pytest

from recsys.api import explainer as module
from recsys.api.batcher import OverloadedError
from recsys.api.explainer import Explainer
from recsys.explanations import explain
from recsys.recommender import Recommender
from recsys.request import Request


def test_a_list_is_explained_in_time(untrained_recommender: Recommender) -> None:
    request = Request(3, 101)
    (ranked,) = untrained_recommender.recommend([request])
    asked = Explainer().explain(untrained_recommender, request, ranked, 60)
    found = asyncio.run(asked)
    assert [one.item_id for one in found] == ranked.item_ids


def test_an_explanation_is_given_up_when_its_time_is_up(
    untrained_recommender: Recommender,
) -> None:
    request = Request(3, 101)
    (ranked,) = untrained_recommender.recommend([request])
    with pytest.raises(TimeoutError):
        explain(untrained_recommender, request, ranked, until=0.0)


def test_those_that_nobody_waits_for_are_not_begun_and_more_are_refused(
    untrained_recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on, begun = threading.Event(), threading.Event(), []

    def held(recommender, request, ranked, until):
        begun.append(request.user_id)
        started.set()
        assert go_on.wait(20)
        return explain(recommender, request, ranked, until=until)

    monkeypatch.setattr(module, "explain", held)
    (ranked,) = untrained_recommender.recommend([Request(3, 101)])

    async def ask() -> tuple[object, object]:
        explainer = Explainer()

        def explained(user: int, seconds: float) -> asyncio.Future:
            request = Request(3, user)
            return asyncio.ensure_future(
                explainer.explain(untrained_recommender, request, ranked, seconds)
            )

        first = explained(101, 60)
        await asyncio.to_thread(started.wait, 20)
        late = await explained(102, 0.01)
        waiting = [explained(103, 60) for _ in range(15)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await explained(104, 60)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        last = explained(105, 60)
        go_on.set()
        await asyncio.gather(first, last)
        return late, first.result()

    late, found = asyncio.run(ask())
    assert late is None
    assert found
    assert begun == [101, 105]
