"""Inference threads: requests are gathered into batches, deadlines kept, load beyond it shed."""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import faiss
import torch

from recsys.recommender import BATCH_SIZE, Recommender
from recsys.request import Request
from recsys.retrieved import Retrieved, Step
from recsys.schema import RankedList

log = logging.getLogger(__name__)

Fallback = Literal["deadline", "stage1_error", "stage2_error"]
"""Why a list is not ordered by the best stage there is."""

T = TypeVar("T")

_SMOOTHING = 0.2
_HALF_LIFE_SECONDS = 5.0


class OverloadedError(Exception):
    """No room in the queue. retry_after: whole seconds after which there should be some."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"expected room in the queue; found none; retry in {retry_after} s")
        self.retry_after = retry_after


@dataclass(eq=False)
class StepTime:
    """When a step ran, as of ``time.monotonic``; ended is None while it does.

    A context manager: begun when it is made, ended when it is left.
    """

    name: Step
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    failed: bool = False

    def __enter__(self) -> "StepTime":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.failed = kind is not None
        self.ended = time.monotonic()


@dataclass(eq=False)
class BatchTimes:
    """How many requests were run together, and when: the inference thread writes it as it goes."""

    size: int
    steps: list[StepTime] = field(default_factory=list)

    def begin(self, name: Step) -> StepTime:
        """A step starts."""
        step = StepTime(name)
        self.steps.append(step)
        return step


@dataclass(frozen=True)
class Answer:
    """A list, and where it is less than asked for, why.

    times: of its batch; None where its time was up before it got into one.
    """

    ranked: RankedList
    fallback: Fallback | None = None
    times: BatchTimes | None = field(default=None, compare=False)


class Observer(Protocol):
    """Told what the inference thread does; called from it."""

    def batch(self, size: int, waited: Sequence[float]) -> None:
        """A batch starts, whose requests have waited this many seconds."""

    def step(self, name: Step, seconds: float, size: int) -> None:
        """A step of a batch of this size took this long."""


@dataclass(eq=False)
class _Job:
    request: Request
    recommender: Recommender
    deadline: float
    future: asyncio.Future[Answer]
    loop: asyncio.AbstractEventLoop
    queued: float = field(default_factory=time.monotonic)
    # Set by the inference thread for the case that a stage is late: when stage 1 starts, and with
    # what it has answered.
    times: BatchTimes | None = None
    retrieved: tuple[Retrieved, int] | None = None


class Batcher:
    """Runs ``Recommender``'s two stages on batches of what is asked at the same time.

    A batch is what has come in while the batch before it ran: under load batches grow by
    themselves, and a lone request never waits for company. A request whose deadline would not be
    kept by stage 2 gets stage 1's list; one whose deadline passes gets what there is by then, stage
    1's list or the popular items.

    Args:
        max_batch: requests run at once. max_queue: requests that may wait; more are refused.
        threads: batches run at the same time; they share what waits.
    """

    def __init__(
        self, max_batch: int, max_queue: int, observer: Observer, threads: int = 1
    ) -> None:
        self.max_batch = min(max_batch, BATCH_SIZE)
        self.max_queue = max_queue
        self.observer = observer
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._stage1 = _Duration()
        self._stage2 = _Duration()
        self._threads = [
            threading.Thread(target=self._run, name=f"inference-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._jobs)

    async def submit(self, recommender: Recommender, request: Request, seconds: float) -> Answer:
        """The answer, after ``seconds`` at most.

        Raises:
            OverloadedError: at once, when the queue is full or the server stops.
        """
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + seconds
        job = _Job(request, recommender, deadline, loop.create_future(), loop)
        with self._changed:
            if self._closed or len(self._jobs) >= self.max_queue:
                raise OverloadedError(self._retry_after())
            self._jobs.append(job)
            self._changed.notify()
        timer = loop.call_later(seconds, self._expire, job)
        try:
            return await job.future
        except asyncio.CancelledError:  # the caller has gone away
            self._forget(job)
            raise
        finally:
            timer.cancel()

    def close(self) -> None:
        """Answer what waits, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _retry_after(self) -> int:
        batches = 1 + len(self._jobs) // self.max_batch
        return max(1, round(batches * (self._stage1.expected() + self._stage2.expected())))

    def _forget(self, job: _Job) -> None:
        """Free the place of a job that nobody waits for any more."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)

    def _expire(self, job: _Job) -> None:
        """The deadline has passed: answer with what there is."""
        if job.future.done():
            return
        self._forget(job)
        if job.retrieved is None:
            ranked = job.recommender.popular(job.request)
        else:
            retrieved, row = job.retrieved
            ranked = job.recommender.as_retrieved(retrieved)[row]
        job.future.set_result(Answer(ranked, "deadline", job.times))

    def _run(self) -> None:
        # Each thread has a setting of its own. A batch uses one core: on several, it would compete
        # with the other batches.
        torch.set_num_threads(1)
        faiss.omp_set_num_threads(1)
        while jobs := self._take():
            try:
                self._answer(jobs)
            except Exception as error:
                # Without this thread nothing would be answered any more.
                log.exception("a batch failed")
                self._tell(jobs, _fail, error)
            del jobs  # and with them a model that may be replaced before others come

    def _answer(self, jobs: Sequence[_Job]) -> None:
        now = time.monotonic()
        self.observer.batch(len(jobs), [now - job.queued for job in jobs])
        # One batch has one model: after a reload, jobs of two may wait side by side.
        for recommender in {id(job.recommender): job.recommender for job in jobs}.values():
            own = [job for job in jobs if job.recommender is recommender]
            needed = self._stage1.expected() + self._stage2.expected()
            in_time = [job for job in own if now + needed <= job.deadline]
            late = [job for job in own if now + needed > job.deadline]
            if in_time:
                self._both_stages(recommender, in_time)
            if late:
                self._first_stage(recommender, late)

    def _take(self) -> list[_Job]:
        """The next batch; none when closed and done."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            share = -(-len(self._jobs) // len(self._threads))
            number = min(share, self.max_batch)
            return [self._jobs.popleft() for _ in range(number)]

    def _both_stages(self, recommender: Recommender, jobs: Sequence[_Job]) -> None:
        times = BatchTimes(len(jobs))
        retrieved = self._retrieve(recommender, jobs, times, rerank=True)
        if retrieved is None:
            return
        for row, job in enumerate(jobs):
            job.retrieved = retrieved, row
        fallback: Fallback | None = None
        started = time.monotonic()
        try:
            answers = recommender.rerank(retrieved, watch=times.begin)
        except Exception:
            log.exception("stage 2 failed; answering in stage 1's order")
            answers, fallback = recommender.as_retrieved(retrieved), "stage2_error"
        self._stage2.add(time.monotonic() - started)
        self._publish(jobs, answers, fallback, times)

    def _first_stage(self, recommender: Recommender, jobs: Sequence[_Job]) -> None:
        """For jobs that stage 2 would be late for; without a stage 2 nothing is amiss."""
        times = BatchTimes(len(jobs))
        retrieved = self._retrieve(recommender, jobs, times, rerank=False)
        if retrieved is not None:
            fallback: Fallback | None = None if recommender.reranker is None else "deadline"
            with times.begin("rules"):
                answers = recommender.as_retrieved(retrieved)
            self._publish(jobs, answers, fallback, times)

    def _retrieve(
        self, recommender: Recommender, jobs: Sequence[_Job], times: BatchTimes, *, rerank: bool
    ) -> Retrieved | None:
        """None when stage 1 failed: the jobs are answered with popular items then."""
        for job in jobs:
            job.times = times
        started = time.monotonic()
        requests = [job.request for job in jobs]
        try:
            retrieved = recommender.retrieve(requests, rerank=rerank, watch=times.begin)
        except Exception:
            log.exception("stage 1 failed; answering with popular items")
            popular = [recommender.popular(request) for request in requests]
            self._publish(jobs, popular, "stage1_error", times)
            return None
        self._stage1.add(time.monotonic() - started)
        return retrieved

    def _publish(
        self,
        jobs: Sequence[_Job],
        lists: Sequence[RankedList],
        fallback: Fallback | None,
        times: BatchTimes,
    ) -> None:
        for step in times.steps:
            if step.ended is not None:
                self.observer.step(step.name, step.ended - step.started, times.size)
        self._tell(jobs, _resolve, [Answer(ranked, fallback, times) for ranked in lists])

    def _tell(
        self, jobs: Sequence[_Job], how: Callable[[Sequence[_Job], T], None], what: T
    ) -> None:
        """Hand something to the event loop, in one wake-up for the whole batch."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            jobs[0].loop.call_soon_threadsafe(how, jobs, what)


def _resolve(jobs: Sequence[_Job], answers: Sequence[Answer]) -> None:
    for job, answer in zip(jobs, answers, strict=True):
        if not job.future.done():
            job.future.set_result(answer)


def _fail(jobs: Sequence[_Job], error: Exception) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(error)


class _Duration:
    """What a stage is expected to take: a moving average that fades.

    It fades so that a stage that was slow once is tried again after a while.
    """

    def __init__(self) -> None:
        self._average: float | None = None
        self._measured = 0.0

    def add(self, seconds: float) -> None:
        old = seconds if self._average is None else self._average
        # A stage that gets slow is believed at once, one that gets fast after some batches.
        self._average = max(seconds, old + _SMOOTHING * (seconds - old))
        self._measured = time.monotonic()

    def expected(self) -> float:
        """Seconds; 0 when nothing is known."""
        if self._average is None:
            return 0.0
        idle = time.monotonic() - self._measured
        return float(self._average * 0.5 ** (idle / _HALF_LIFE_SECONDS))
