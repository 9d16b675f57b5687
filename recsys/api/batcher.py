"""Inference threads: requests are gathered into batches, deadlines kept, load beyond it shed."""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import faiss
import torch

from recsys.api.durations import Duration
from recsys.api.jobs import (
    Answer,
    BatchTimes,
    Fallback,
    Finish,
    Job,
    WaitingJobs,
)
from recsys.recommender import BATCH_SIZE, Recommender
from recsys.request import Request
from recsys.retrieved import Retrieved, Step, always_late
from recsys.schema import RankedList

__all__ = ["Answer", "BatchTimes", "Batcher", "Fallback", "Observer", "OverloadedError"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_GATHERING_SHARE, _GATHERING_SECONDS = 0.25, 0.003
"""How long a batch waits for more requests: of the time that it takes, and at most."""


class OverloadedError(Exception):
    """No room in the queue. retry_after: whole seconds after which there should be some."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"expected room in the queue; found none; retry in {retry_after} s")
        self.retry_after = retry_after


class Observer(Protocol):
    """Told what the inference thread does; called from it."""

    def batch(self, size: int, waited: Sequence[float]) -> None:
        """A batch starts, whose requests have waited this many seconds."""

    def step(self, name: Step, seconds: float, size: int) -> None:
        """A step of a batch of this size took this long."""


def _as_it_is(answer: Answer) -> Answer:
    return answer


class Batcher:
    """Runs ``Recommender``'s two stages on batches of what is asked at the same time.

    A batch is what has come in while the batch before it ran, and what comes right after: under
    load batches grow by themselves. Where several have asked at the same time, those who have just
    been answered are given a moment to ask again, since a list costs the less the more are made at
    once; a lone request never waits for company. A request whose deadline would not be
    kept by stage 2 gets stage 1's list; one whose deadline passes gets what there is by then, stage
    1's list or the popular items, from a thread that does nothing else.

    Nothing is done to a list in the event loop's thread but handing it on.

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
        self._jobs = WaitingJobs()
        self._changed = threading.Condition()
        self._wanted = 1  # so many that wait are worth a wake-up
        self._company = 1  # who asked at the same time, last time
        self._closed = False
        # Those whose deadline has passed: no more than have been asked for, and soon done with.
        self._late: deque[Job] = deque()
        self._late_changed = threading.Condition()
        self._late_closed = False
        self._stage1 = Duration()
        self._stage2 = Duration()
        self._long_rules = Duration()  # of one list
        self._threads = [
            threading.Thread(target=self._run, name=f"inference-{number}", daemon=True)
            for number in range(threads)
        ]
        self._late_thread = threading.Thread(target=self._run_late, name="late", daemon=True)
        for thread in (*self._threads, self._late_thread):
            thread.start()

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._jobs)

    async def submit(
        self,
        recommender: Recommender,
        request: Request,
        seconds: float,
        finish: Finish = _as_it_is,
    ) -> Answer:
        """The answer, after ``seconds`` at most.

        Args:
            finish: makes what is sent of the answer, in the thread that has made the list.

        Raises:
            OverloadedError: at once, when the queue is full or the server stops.
        """
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + seconds
        job = Job(request, recommender, deadline, finish, loop.create_future(), loop)
        with self._changed:
            if self._closed or len(self._jobs) >= self.max_queue:
                raise OverloadedError(self._retry_after())
            self._jobs.add(job)
            if len(self._jobs) >= self._wanted:
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
        with self._late_changed:
            self._late_closed = True
            self._late_changed.notify_all()
        self._late_thread.join()

    def _retry_after(self) -> int:
        batches = 1 + len(self._jobs) // self.max_batch
        return max(1, round(batches * (self._stage1.expected() + self._stage2.expected())))

    def _forget(self, job: Job) -> None:
        """Free the place of a job that nobody waits for any more."""
        with self._changed:
            self._jobs.discard(job)

    def _expire(self, job: Job) -> None:
        """The deadline has passed: have it answered with what there is."""
        if not job.future.done():
            self._forget(job)
            with self._late_changed:
                self._late.append(job)
                self._late_changed.notify()

    def _run_late(self) -> None:
        torch.set_num_threads(1)  # of this thread
        while jobs := self._take_late():
            self._answer_all_late(jobs)
            del jobs  # as in ``_run``

    def _answer_all_late(self, jobs: Sequence[Job]) -> None:
        waiting = [job for job in jobs if not job.future.done()]
        # As of one moment: a batch may get on meanwhile.
        found = {job: job.retrieved for job in waiting}
        for own in _grouped(waiting, lambda job: _found_by(job, found[job])):
            try:
                self._answer_late(own, [found[job] for job in own])
            except Exception as error:
                log.exception("no list could be made in place of a late one")
                self._tell(own, _fail, error)

    def _take_late(self) -> list[Job]:
        with self._late_changed:
            while not self._late and not self._late_closed:
                self._late_changed.wait()
            return [self._late.popleft() for _ in range(min(len(self._late), BATCH_SIZE))]

    def _answer_late(
        self, jobs: Sequence[Job], found: Sequence[tuple[Retrieved, int] | None]
    ) -> None:
        """What there is for jobs of one model and one batch.

        Args:
            found: of each, what stage 1 has found for the batch, and its row in that.
        """
        recommender, rows = jobs[0].recommender, [one for one in found if one is not None]
        if not rows:
            lists = recommender.popular([job.request for job in jobs])
            retrieved = None
        else:
            retrieved = rows[0][0].of([row for _, row in rows])
            lists = recommender.as_retrieved(retrieved, always_late)
        self._resolve(
            jobs,
            [
                Answer(
                    one,
                    "deadline",
                    job.times,
                    found=None if retrieved is None else (retrieved, row),
                )
                for row, (job, one) in enumerate(zip(jobs, lists, strict=True))
            ],
        )

    def _run(self) -> None:
        # Each thread has a setting of its own. A batch uses one core: on several, it would compete
        # with the other batches.
        torch.set_num_threads(1)
        faiss.omp_set_num_threads(1)
        while jobs := self._take():
            self._answer_all(jobs)
            del jobs  # and with them a model that may be replaced before others come

    def _answer_all(self, jobs: Sequence[Job]) -> None:
        # One batch has one model: after a reload, jobs of two may wait side by side. Lists that
        # take long come last, and nobody else's wait for them.
        short = [job for job in jobs if not job.is_long]
        long = [job for job in jobs if job.is_long]
        for part in (short, long):
            for own in _grouped(part, lambda job: id(job.recommender)):
                try:
                    self._answer(own)
                except Exception as error:
                    # Without this thread nothing would be answered any more.
                    log.exception("a batch failed")
                    self._tell(own, _fail, error)

    def _take(self) -> list[Job]:
        """The next batch; none when closed and done."""
        with self._changed:
            has_gathered = False
            while not (self._jobs and has_gathered) and not self._closed:
                if self._jobs:
                    self._gather()  # after which all may have gone away
                    has_gathered = True
                else:
                    self._changed.wait()
            return self._jobs.take(self.max_batch, len(self._threads))

    def _gather(self) -> None:
        """Wait a moment for those who may ask again. For whoever holds the condition."""
        batch = self._stage1.expected() + self._stage2.expected()
        until = time.monotonic() + min(_GATHERING_SHARE * batch, _GATHERING_SECONDS)
        self._wanted = min(self._company, self.max_batch)
        while len(self._jobs) < self._wanted and not self._closed:
            left = until - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(left)
        self._wanted = 1

    def _answer(self, jobs: Sequence[Job]) -> None:
        """For jobs of one model."""
        now = time.monotonic()
        self.observer.batch(len(jobs), [now - job.queued for job in jobs])
        recommender = jobs[0].recommender
        needed = self._stage1.expected() + self._stage2.expected()
        in_time = [job for job in jobs if now + needed <= job.deadline]
        late = [job for job in jobs if now + needed > job.deadline]
        if in_time:
            self._both_stages(recommender, in_time)
        if late:
            self._first_stage(recommender, late)

    def _both_stages(self, recommender: Recommender, jobs: Sequence[Job]) -> None:
        times = BatchTimes(len(jobs))
        retrieved = self._retrieve(recommender, jobs, times, rerank=True)
        if retrieved is None or all(job.future.done() for job in jobs):
            return
        for row, job in enumerate(jobs):
            job.retrieved = retrieved, row
        fallback: Fallback | None = None
        patience = _Patience(jobs, self._long_rules)
        started = time.monotonic()
        try:
            answers = recommender.rerank(retrieved, watch=times.begin, is_late=patience.is_late)
        except Exception:
            log.exception("stage 2 failed; answering in stage 1's order")
            answers = recommender.as_retrieved(retrieved, patience.is_late)
            fallback = "stage2_error"
        ruled = patience.measured(times.spent("rules"))
        self._stage2.add(time.monotonic() - started - ruled)
        self._publish(jobs, answers, fallback, times, retrieved, patience)

    def _first_stage(self, recommender: Recommender, jobs: Sequence[Job]) -> None:
        """For jobs that stage 2 would be late for; without a stage 2 nothing is amiss."""
        times = BatchTimes(len(jobs))
        retrieved = self._retrieve(recommender, jobs, times, rerank=False)
        if retrieved is not None:
            fallback: Fallback | None = None if recommender.reranker is None else "deadline"
            patience = _Patience(jobs, self._long_rules)
            with times.begin("rules"):
                answers = recommender.as_retrieved(retrieved, patience.is_late)
            patience.measured(times.spent("rules"))
            self._publish(jobs, answers, fallback, times, retrieved, patience)

    def _retrieve(
        self, recommender: Recommender, jobs: Sequence[Job], times: BatchTimes, *, rerank: bool
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
            self._publish(jobs, recommender.popular(requests), "stage1_error", times)
            return None
        self._stage1.add(time.monotonic() - started)
        return retrieved

    def _publish(
        self,
        jobs: Sequence[Job],
        lists: Sequence[RankedList],
        fallback: Fallback | None,
        times: BatchTimes,
        retrieved: Retrieved | None = None,
        patience: "_Patience | None" = None,
    ) -> None:
        for step in times.steps:
            if step.ended is not None:
                self.observer.step(step.name, step.ended - step.started, times.size)
        late = set() if patience is None else patience.late
        # Before anybody can ask again: those who wait, and those who are answered now.
        self._company = len(self._jobs) + len(jobs)
        self._resolve(
            jobs,
            [
                Answer(
                    ranked,
                    fallback or ("deadline" if row in late else None),
                    times,
                    found=None if retrieved is None else (retrieved, row),
                )
                for row, ranked in enumerate(lists)
            ],
        )

    def _resolve(self, jobs: Sequence[Job], answers: Sequence[Answer]) -> None:
        finished = [job.finished(answer) for job, answer in zip(jobs, answers, strict=True)]
        self._tell(jobs, _resolve, finished)

    def _tell(self, jobs: Sequence[Job], how: Callable[[Sequence[Job], T], None], what: T) -> None:
        """Hand something to the event loop, in one wake-up for the whole batch."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            jobs[0].loop.call_soon_threadsafe(how, jobs, what)


class _Patience:
    """Which lists of a batch have no time left for rules that take long.

    Args:
        expected: how long these take for one list.
    """

    def __init__(self, jobs: Sequence[Job], expected: Duration) -> None:
        self.late: set[int] = set()
        self._jobs = jobs
        self._expected = expected
        self._num_long = 0

    def is_late(self, row: int) -> bool:
        """As ``ListBuilder`` asks."""
        job = self._jobs[row]
        is_late = job.future.done() or time.monotonic() + self._expected.expected() > job.deadline
        if is_late:
            self.late.add(row)
        else:
            self._num_long += 1
        return is_late

    def measured(self, seconds: float) -> float:
        """How much of the time for the rules of a batch went to those that take long."""
        if not self._num_long:
            return 0.0
        self._expected.add(seconds / self._num_long)
        return seconds


def _found_by(job: Job, found: tuple[Retrieved, int] | None) -> tuple[int, int]:
    """The model of a job and the batch that it has been in, to tell them apart."""
    return id(job.recommender), id(None if found is None else found[0])


def _grouped(jobs: Iterable[Job], key: Callable[[Job], object]) -> list[list[Job]]:
    groups: dict[object, list[Job]] = {}
    for job in jobs:
        groups.setdefault(key(job), []).append(job)
    return list(groups.values())


def _resolve(jobs: Sequence[Job], answers: Sequence[Answer | Exception | None]) -> None:
    for job, answer in zip(jobs, answers, strict=True):
        if not job.future.done():
            if isinstance(answer, Exception):
                job.future.set_exception(answer)
            elif answer is not None:
                job.future.set_result(answer)


def _fail(jobs: Sequence[Job], error: Exception) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(error)
