"""The inference thread: order, deadlines, a full queue, callers that go away, the end."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from recsys.api.batcher import Answer, Batcher, OverloadedError
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.rules import Rules


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
        assert size <= self.sizes[-1]  # fewer where some have time for more than others
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


async def ask_again_and_again(batcher: Batcher, recommender: Recommender) -> list[Answer]:
    asked = [Request(3, user_id=101)] * 8
    return [await batcher.submit(recommender, one, 20.0) for one in asked]


def test_one_who_asks_alone_never_waits_for_company(
    untrained_recommender: Recommender, batcher: Batcher, notes: Notes, monkeypatch
) -> None:
    monkeypatch.setattr("recsys.api.batcher._GATHERING_SHARE", 1e9)
    monkeypatch.setattr("recsys.api.batcher._GATHERING_SECONDS", 30.0)  # later than any deadline
    answers = asyncio.run(ask_again_and_again(batcher, untrained_recommender))
    assert notes.sizes == [1] * len(answers)
    assert {answer.fallback for answer in answers} == {None}


def test_those_who_ask_again_and_again_share_batches(
    untrained_recommender: Recommender, batcher: Batcher, notes: Notes, monkeypatch
) -> None:
    monkeypatch.setattr("recsys.api.batcher._GATHERING_SHARE", 1e9)
    monkeypatch.setattr("recsys.api.batcher._GATHERING_SECONDS", 2.0)  # once, when some are done

    async def ask() -> None:
        clients = (ask_again_and_again(batcher, untrained_recommender) for _ in range(4))
        await asyncio.gather(*clients)

    asyncio.run(ask())
    assert sum(notes.sizes) == 4 * 8
    assert notes.sizes.count(4) >= 5


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


LONG = Rules(diversity=1.0, diversify="dpp")
"""Of lists that take long, where these have many items."""


def test_late_lists_are_made_off_the_loop_and_are_not_diversified(
    batcher: Batcher, untrained_recommender: Recommender
) -> None:
    threads: set[str] = set()

    class Slow(Held):
        """A recommender that notes who makes lists."""

        def popular(self, requests):
            threads.add(threading.current_thread().name)
            return self.recommender.popular(requests)

        def as_retrieved(self, retrieved, is_late):
            threads.add(threading.current_thread().name)
            assert is_late(0)
            return self.recommender.as_retrieved(retrieved, is_late)

        def rerank(self, retrieved, **options):
            self.started.set()
            assert self.go_on.wait(20)
            return self.recommender.rerank(retrieved, **options)

        def retrieve(self, requests, **options):
            return self.recommender.retrieve(requests, **options)

    slow = Slow(untrained_recommender)

    async def ask() -> list[Answer]:
        first = [batcher.submit(slow, Request(30, 101 + n, rules=LONG), 3.0) for n in range(2)]
        asked = [asyncio.ensure_future(one) for one in first]
        await asyncio.to_thread(slow.started.wait)
        asked += [
            asyncio.ensure_future(batcher.submit(slow, Request(30, 110 + n, rules=LONG), 0.3))
            for n in range(15)
        ]
        return await asyncio.gather(*asked)

    answers = asyncio.run(ask())
    slow.go_on.set()

    assert {answer.fallback for answer in answers} == {"deadline"}
    assert {answer.ranked.source for answer in answers} == {"retrieved", "popular"}
    assert threads == {"late"}
    expected = untrained_recommender.popular([Request(30, 124)])[0]
    assert answers[-1].ranked.item_ids == expected.item_ids


def test_without_time_for_it_a_list_is_less_diverse_and_says_so(
    batcher: Batcher, untrained_recommender: Recommender
) -> None:
    request = Request(25, 101, rules=LONG)
    batcher._long_rules.add(1000.0)

    async def ask(seconds: float) -> Answer:
        return await batcher.submit(untrained_recommender, request, seconds)

    hurried, patient = asyncio.run(ask(20)), asyncio.run(ask(20_000))
    plain, diverse = untrained_recommender.recommend([Request(25, 101), request])
    assert (hurried.ranked.item_ids, hurried.fallback) == (plain.item_ids, "deadline")
    assert (patient.ranked.item_ids, patient.fallback) == (diverse.item_ids, None)
    assert plain.item_ids != diverse.item_ids


def test_lists_that_take_long_do_not_hold_up_others(
    batcher: Batcher, untrained_recommender: Recommender
) -> None:
    held = Held(untrained_recommender)
    done: list[str] = []

    async def ask() -> None:
        async def one(name: str, request: Request) -> None:
            await batcher.submit(held, request, 20)
            done.append(name)

        asked = [asyncio.ensure_future(one("first", Request(3, 101)))]
        await asyncio.to_thread(held.started.wait)
        asked += [
            asyncio.ensure_future(one("long", Request(30, 102 + n, rules=LONG))) for n in range(12)
        ]
        asked.append(asyncio.ensure_future(one("plain", Request(3, 150))))
        await asyncio.sleep(0)
        held.go_on.set()
        await asyncio.gather(*asked)

    asyncio.run(ask())
    assert done[:2] == ["first", "plain"]
    assert done.count("long") == 12


def test_who_goes_away_is_not_answered(
    batcher: Batcher, notes: Notes, untrained_recommender: Recommender
) -> None:
    held = Held(untrained_recommender)

    async def ask() -> None:
        first = asyncio.ensure_future(batcher.submit(held, Request(3, 101), 20))
        await asyncio.to_thread(held.started.wait)
        others = [
            asyncio.ensure_future(batcher.submit(held, Request(3, 102 + n), 20)) for n in range(9)
        ]
        await asyncio.sleep(0)
        for one in others:
            one.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        held.go_on.set()
        await first

    asyncio.run(ask())
    assert notes.sizes == [1]


def test_answers_are_finished_off_the_loop_and_one_that_fails_fails_alone(
    batcher: Batcher, untrained_recommender: Recommender
) -> None:
    threads = set()

    def finish(answer: Answer) -> Answer:
        threads.add(threading.current_thread())
        return answer

    def fail(answer: Answer) -> Answer:
        raise RuntimeError("cannot be told")

    async def ask() -> list[object]:
        return await asyncio.gather(
            batcher.submit(untrained_recommender, Request(3, 101), 20, finish),
            batcher.submit(untrained_recommender, Request(3, 102), 20, fail),
            batcher.submit(untrained_recommender, Request(3, 103), 0, finish),
            return_exceptions=True,
        )

    good, bad, late = asyncio.run(ask())
    assert good.ranked.source == "reranked"
    assert str(bad) == "cannot be told"
    assert late.fallback == "deadline"
    assert threading.main_thread() not in threads


def test_a_late_answer_that_cannot_be_made_is_told_and_ends_nothing(
    batcher: Batcher, untrained_recommender: Recommender, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Held):
        def popular(self, requests):
            raise RuntimeError("popularity is out of order")

    async def ask(recommender: Recommender) -> Answer:
        return await batcher.submit(recommender, Request(3, 101), 0)

    held = Broken(untrained_recommender)
    with pytest.raises(RuntimeError, match="out of order"):
        asyncio.run(ask(held))
    held.go_on.set()
    assert asyncio.run(ask(untrained_recommender)).fallback == "deadline"
    assert "in place of a late one" in caplog.text
