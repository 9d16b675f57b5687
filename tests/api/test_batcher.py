"""The inference thread: order, deadlines, a full queue, callers that go away, the end."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from recsys.api.batcher import Answer, Batcher, OverloadedError
from recsys.recommender import Recommender
from recsys.request import Request


class Notes:
    """Keeps what the batcher tells."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.steps: list[str] = []

    def batch(self, size: int, waited: Sequence[float]) -> None:
        assert len(waited) == size
        assert min(waited) >= 0
        self.sizes.append(size)

    def step(self, name: str, seconds: float, size: int) -> None:
        assert seconds >= 0
        assert size == self.sizes[-1]
        self.steps.append(name)


class Held:
    """A recommender whose stage 1 waits for ``go_on``."""

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self.started, self.go_on = threading.Event(), threading.Event()

    def __getattr__(self, name: str):
        return getattr(self.recommender, name)

    def retrieve(self, requests, **options):
        self.started.set()
        assert self.go_on.wait(20)
        return self.recommender.retrieve(requests, **options)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def batcher(notes: Notes) -> Iterator[Batcher]:
    batcher = Batcher(max_batch=8, max_queue=20, observer=notes)
    yield batcher
    batcher.close()


def test_answers_under_concurrency_equal_answers_one_by_one(
    batcher: Batcher, notes: Notes, untrained_recommender: Recommender
) -> None:
    held = Held(untrained_recommender)
    requests = [Request(5 + n % 3, user_id=101 + n) for n in range(20)]

    async def ask() -> list[Answer]:
        asked = [asyncio.ensure_future(batcher.submit(held, one, 20)) for one in requests]
        await asyncio.to_thread(held.started.wait)
        held.go_on.set()
        return await asyncio.gather(*asked)

    answers = asyncio.run(ask())

    expected = [untrained_recommender.recommend([one])[0].item_ids for one in requests]
    assert [answer.ranked.item_ids for answer in answers] == expected
    assert {answer.fallback for answer in answers} == {None}
    # What came in while a batch ran is the next one.
    assert sum(notes.sizes) == 20
    assert max(notes.sizes) == 8
    assert notes.steps == ["encode", "search", "rerank", "rules"] * len(notes.sizes)


def test_a_full_queue_refuses_and_accepts_again(
    batcher: Batcher, untrained_recommender: Recommender
) -> None:
    held = Held(untrained_recommender)

    async def ask() -> tuple[int, int]:
        first = asyncio.ensure_future(batcher.submit(held, Request(3, 101), 20))
        await asyncio.to_thread(held.started.wait)
        waiting = [asyncio.ensure_future(batcher.submit(held, Request(3, 102), 20))] * 1
        waiting += [
            asyncio.ensure_future(batcher.submit(held, Request(3, 103), 20)) for _ in range(19)
        ]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as refused:
            await batcher.submit(held, Request(3, 104), 20)
        assert refused.value.retry_after >= 1
        # A caller that goes away frees its place.
        waiting.pop().cancel()
        await asyncio.sleep(0.01)
        accepted = asyncio.ensure_future(batcher.submit(held, Request(3, 105), 20))
        held.go_on.set()
        answers = await asyncio.gather(first, *waiting, accepted)
        return len(answers), len(batcher)

    assert asyncio.run(ask()) == (21, 0)


def test_no_answer_is_later_than_its_deadline(
    batcher: Batcher, untrained_recommender: Recommender
) -> None:
    held = Held(untrained_recommender)

    async def ask() -> tuple[list[Answer], float]:
        started = time.monotonic()
        answers = await asyncio.gather(
            *(batcher.submit(held, Request(4, 101 + n), 0.2) for n in range(12))
        )
        return answers, time.monotonic() - started

    answers, seconds = asyncio.run(ask())
    held.go_on.set()

    assert 0.2 <= seconds < 1.0
    assert {(one.ranked.source, one.fallback) for one in answers} == {("popular", "deadline")}
    assert len(batcher) == 0


def test_stage_2_is_not_begun_when_it_would_be_late_and_is_tried_again(
    batcher: Batcher, notes: Notes, untrained_recommender: Recommender
) -> None:
    class SlowOnce(Held):
        slow = True

        def rerank(self, retrieved, **options):
            if self.slow:
                time.sleep(0.3)
            return self.recommender.rerank(retrieved, **options)

    held = SlowOnce(untrained_recommender)
    held.go_on.set()

    async def ask(seconds: float) -> Answer:
        return await batcher.submit(held, Request(4, 101), seconds)

    slow = asyncio.run(ask(2.0))
    held.slow = False
    hurried = asyncio.run(ask(0.1))
    patient = asyncio.run(ask(2.0))

    assert slow.ranked.source == patient.ranked.source == "reranked"
    assert (hurried.ranked.source, hurried.fallback) == ("retrieved", "deadline")
    both = ["encode", "search", "rerank", "rules"]
    assert notes.steps == [*both, "encode", "search", "rules", *both]


def test_the_end_answers_what_waits_and_refuses_what_comes(
    notes: Notes, untrained_recommender: Recommender
) -> None:
    batcher = Batcher(max_batch=2, max_queue=20, observer=notes)
    held = Held(untrained_recommender)

    async def ask() -> list[Answer]:
        asked = [
            asyncio.ensure_future(batcher.submit(held, Request(4, 101 + n), 20)) for n in range(9)
        ]
        await asyncio.to_thread(held.started.wait)
        closing = asyncio.ensure_future(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError):
            await batcher.submit(held, Request(4, 150), 20)
        held.go_on.set()
        answers = await asyncio.gather(*asked)
        await closing
        return answers

    answers = asyncio.run(ask())
    assert [answer.ranked.source for answer in answers] == ["reranked"] * 9


def test_a_batch_that_fails_altogether_does_not_end_the_thread(
    batcher: Batcher, untrained_recommender: Recommender, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Held):
        def retrieve(self, requests, *, rerank=True):
            raise RuntimeError("stage 1 is out of order")

        def popular(self, requests):
            raise RuntimeError("so is popularity")

    async def ask(recommender: Recommender) -> Answer:
        return await batcher.submit(recommender, Request(3, 101), 5)

    with pytest.raises(RuntimeError, match="so is popularity"):
        asyncio.run(ask(Broken(untrained_recommender)))
    assert asyncio.run(ask(untrained_recommender)).ranked.source == "reranked"
    assert "a batch failed" in caplog.text
