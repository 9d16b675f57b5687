"""Requests that wait for an inference thread, and in which order they are taken."""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from recsys.recommender import Recommender
from recsys.request import Request
from recsys.retrieved import Retrieved, Step
from recsys.schema import RankedList

Fallback = Literal["deadline", "stage1_error", "stage2_error"]
"""Why an answer is less than the best that there is."""

_LONG_LIST = 20
"""Rules that take long do so with lists of more items than these."""
_MANY_BOOSTS = 10
_SHARE_OF_LONG = 4
"""One of so many places of a batch is for lists that take long."""


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

    def spent(self, name: Step) -> float:
        """Seconds of a step that has ended."""
        return sum(
            step.ended - step.started
            for step in self.steps
            if step.name == name and step.ended is not None
        )


@dataclass(frozen=True)
class Answer:
    """A list, and where it is less than asked for, why.

    times: of its batch; None where its time was up before it got into one. propensities: of its
    items, where exploration has a part in it. found: by stage 1 for its batch, and its row in that;
    None where there was no time for it. body: what a client is sent, once it has been made.
    """

    ranked: RankedList
    fallback: Fallback | None = None
    times: BatchTimes | None = field(default=None, compare=False)
    propensities: list[float] | None = None
    found: tuple[Retrieved, int] | None = field(default=None, compare=False)
    body: bytes = b""


Finish = Callable[[Answer], Answer]
"""What is left to do of an answer, called in the thread that has made the list."""


@dataclass(eq=False)
class Job:
    """One list that somebody waits for, until ``deadline`` as of ``time.monotonic``.

    times, retrieved: set by the inference thread for the case that a stage is late: when stage 1
    starts, and with what it has answered.
    """

    request: Request
    recommender: Recommender
    deadline: float
    finish: Finish
    future: asyncio.Future[Answer]
    loop: asyncio.AbstractEventLoop
    queued: float = field(default_factory=time.monotonic)
    times: BatchTimes | None = None
    retrieved: tuple[Retrieved, int] | None = None
    _first: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_long(self) -> bool:
        """Whether making its list takes many times as long as that of others."""
        rules = self.request.rules
        has_long_list = rules.takes_long and self.request.top_k > _LONG_LIST
        return has_long_list or len(rules.boost) > _MANY_BOOSTS

    def finished(self, answer: Answer) -> Answer | Exception | None:
        """The answer with all that belongs to it, or what prevents that.

        None where nobody waits for it, or another thread has another answer: the first one counts.
        """
        if self.future.done() or not self._first.acquire(blocking=False):
            return None
        try:
            return self.finish(answer)
        except Exception as error:
            return error


class WaitingJobs:
    """Jobs in the order in which they came, those that take long beside the others.

    A batch has room for both, so that nobody waits until all of somebody else's long ones are done.
    """

    def __init__(self) -> None:
        self._short: OrderedDict[Job, None] = OrderedDict()
        self._long: OrderedDict[Job, None] = OrderedDict()

    def __len__(self) -> int:
        """Jobs that wait."""
        return len(self._short) + len(self._long)

    def add(self, job: Job) -> None:
        """One more waits."""
        self._of(job)[job] = None

    def discard(self, job: Job) -> None:
        """Nobody waits for it any more; nothing happens where it has been taken."""
        self._of(job).pop(job, None)

    def _of(self, job: Job) -> OrderedDict[Job, None]:
        return self._long if job.is_long else self._short

    def take(self, most: int, takers: int) -> list[Job]:
        """Up to ``most`` jobs, this taker's share of what waits."""
        short = min(-(-len(self._short) // takers), most)
        long = min(-(-len(self._long) // takers), max(1, most // _SHARE_OF_LONG))
        if short + long > most:
            if most > 1:
                short = most - long
            elif next(iter(self._short)).queued < next(iter(self._long)).queued:
                long = 0
            else:
                short = 0
        return [*_first(self._short, short), *_first(self._long, long)]


def _first(jobs: OrderedDict[Job, None], number: int) -> Sequence[Job]:
    return [jobs.popitem(last=False)[0] for _ in range(number)]
