"""Batches that come in while a transaction runs share the next one, and its wait for the disk."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from recsys.events.types import Appended, Event, StoreUnavailableError

_MAX_EVENTS = 5_000
"""Of one transaction, unless one batch alone has more."""


@dataclass(eq=False)
class _Job:
    events: Sequence[Event]
    future: "asyncio.Future[Appended]"


class GroupCommit:
    """Commits what waits, one group at a time; groups grow by themselves as load does.

    Args:
        commit: stores a group of batches durably; gives an answer per batch.
        timeout_seconds: that a caller waits at most.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Sequence[Event]]], Awaitable[Sequence[Appended]]],
        timeout_seconds: float,
    ) -> None:
        self._commit = commit
        self._timeout_seconds = timeout_seconds
        self._jobs: deque[_Job] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def append(self, events: Sequence[Event]) -> Appended:
        """Wait until the events are committed.

        A caller that is cancelled leaves the group's other batches alone; its own may be committed.

        Raises:
            StoreUnavailableError: when the commit fails, or time is up.
        """
        job = _Job(events, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await job.future
        except TimeoutError as error:
            waited = f"no commit within {self._timeout_seconds:g} s"
            raise StoreUnavailableError(waited) from error

    async def close(self) -> None:
        """Wait until nothing waits any more."""
        if self._writer is not None:
            await self._writer

    async def _write(self) -> None:
        while jobs := self._take():
            try:
                answers = await self._commit([job.events for job in jobs])
            except Exception as error:
                # Each caller hears of it, and the next group may fare better.
                for job in jobs:
                    if not job.future.done():
                        job.future.set_exception(error)
            else:
                for job, answer in zip(jobs, answers, strict=True):
                    if not job.future.done():
                        job.future.set_result(answer)

    def _take(self) -> list[_Job]:
        """The next group, without those whose callers have gone; empty when nothing waits."""
        jobs: list[_Job] = []
        num_events = 0
        while self._jobs and (not jobs or num_events + len(self._jobs[0].events) <= _MAX_EVENTS):
            job = self._jobs.popleft()
            if not job.future.done():
                jobs.append(job)
                num_events += len(job.events)
        return jobs
