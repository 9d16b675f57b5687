"""One reload at a time: what is shared, what waits, what is refused."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from recsys.api.reload_queue import ReloadQueue


class Work:
    """Done one by one, as the test lets it."""

    def __init__(self) -> None:
        self.begun: list[str | None] = []
        self.running = 0
        self.go_on = asyncio.Event()

    async def __call__(self, key: str | None) -> int:
        assert not self.running
        self.begun.append(key)
        self.running += 1
        number = len(self.begun)
        try:
            await self.go_on.wait()
            if key == "broken":
                raise ValueError(key)
        finally:
            self.running -= 1
        return number


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


def test_the_same_is_shared_until_it_begins() -> None:
    async def test() -> None:
        work = Work()
        queue = ReloadQueue(work, max_waiting=2)
        first = queue.ask(None)
        await asyncio.sleep(0)
        assert work.begun == [None]
        assert not queue.waits(None)
        # The first may have looked already: these are answered by one more.
        later = [queue.ask(None) for _ in range(30)]
        assert queue.waits(None)
        work.go_on.set()
        assert await first == 1
        assert await asyncio.gather(*later) == [2] * 30

    run(test())


def test_few_wait_and_the_newest_always_may() -> None:
    async def test() -> None:
        work = Work()
        queue = ReloadQueue(work, max_waiting=2)
        asked = [queue.ask("a")]
        await asyncio.sleep(0)
        asked += [queue.ask("b"), queue.ask("c"), queue.ask("b")]
        with pytest.raises(asyncio.QueueFull):
            queue.ask("d")
        asked.append(queue.ask(None))
        work.go_on.set()
        assert await asyncio.gather(*asked) == [1, 2, 3, 2, 4]
        assert work.begun == ["a", "b", "c", None]
        assert await queue.ask("d") == 5

    run(test())


def test_a_failure_is_told_to_all_who_share_it_and_stops_nothing() -> None:
    async def test() -> None:
        work = Work()
        work.go_on.set()
        queue = ReloadQueue(work, max_waiting=2)
        asked = [queue.ask("broken"), queue.ask("broken"), queue.ask("b")]
        failed, also, fine = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(failed, ValueError)
        assert failed is also
        assert fine == 2

    run(test())


def test_it_is_done_though_whoever_asked_has_gone() -> None:
    async def test() -> None:
        work = Work()
        queue = ReloadQueue(work, max_waiting=2)
        gone = queue.ask("a")
        await asyncio.sleep(0)
        gone.cancel()
        after = queue.ask("b")
        work.go_on.set()
        assert await after == 2

    run(test())
