"""Reloads one at a time, and few that wait."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class ReloadQueue(Generic[Key, Result]):
    """Does one piece of work at a time; those who ask for the same share what has not begun.

    What has begun may have looked already: who asks after that is answered by the next turn. For
    the thread of one event loop.

    Args:
        work: does what a key asks for. max_waiting: keys that may wait, of all but the key None,
            which always may.
    """

    def __init__(self, work: Callable[[Key], Awaitable[Result]], max_waiting: int) -> None:
        self._work = work
        self._max_waiting = max_waiting
        self._turn = asyncio.Lock()
        self._waiting: dict[Key, asyncio.Task[Result]] = {}

    def waits(self, key: Key) -> bool:
        """Whether work for this key is going to begin."""
        return key in self._waiting

    def ask(self, key: Key) -> "asyncio.Future[Result]":
        """What the work comes to, once it has been this key's turn.

        It is done also when nobody waits for it any more.

        Raises:
            asyncio.QueueFull: when too much waits.
        """
        task = self._waiting.get(key)
        if task is None:
            if key is not None and len(self._waiting) >= self._max_waiting:
                raise asyncio.QueueFull
            task = self._waiting[key] = asyncio.create_task(self._in_turn(key))
            task.add_done_callback(_look_at)
        return asyncio.shield(task)

    async def _in_turn(self, key: Key) -> Result:
        try:
            await self._turn.acquire()
        finally:
            del self._waiting[key]
        try:
            return await self._work(key)
        finally:
            self._turn.release()


def _look_at(task: "asyncio.Task[Result]") -> None:
    if not task.cancelled():
        task.exception()  # whoever waits is told; nobody may
