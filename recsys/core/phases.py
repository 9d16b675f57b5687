"""The phases of a long run: which one it is in, and about how much longer it will take."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence

_PRIOR_SECONDS = 2.0
"""Of phases as fast as expected, that the measured speed counts besides: little tells little."""
_SLOWEST, _FASTEST = 30.0, 0.2
_SECONDS_BETWEEN_PARTS = 10.0


class Phases:
    """Says at the start of each planned phase how long it has taken and about how long is left.

    Expected seconds are those of some reference machine. What finished phases took, over what was
    expected of them, is how slow this run is, and the rest is expected to be as slow. A phase that
    is not planned is silent: code may name its phases whether or not anybody has planned them.

    Args:
        logger: gets the lines. clock: in seconds.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger or logging.getLogger(__name__)
        self._clock = clock
        self._begun = clock()
        self._names: list[str] = []
        self._expected: dict[str, float] = {}
        self._apart: frozenset[str] = frozenset()
        self._taken: dict[str, float] = {}
        self._current: str | None = None
        self._current_begun = self._begun
        self._current_total: float | None = None
        self._told = self._begun

    def plan(self, names: Sequence[str]) -> None:
        """Name all phases, in order, which the log tells."""
        self._names = list(names)
        listed = ", ".join(name[0].lower() + name[1:] for name in names)
        self._logger.info("%d phases: %s", len(names), listed)

    def expect(self, seconds: Mapping[str, float], apart: Collection[str] = ()) -> None:
        """How long phases take on the reference machine.

        Args:
            apart: those whose time tells nothing of the others', such as what may be cached.
        """
        self._expected = dict(seconds)
        self._apart = frozenset(apart)
        self._logger.info("the rest takes about %s, by the size of the data", _about(self.left()))

    def scale(self, names: Collection[str], factor: float) -> None:
        """Expect so many times as much of some phases, from what an earlier one has found."""
        for name in names:
            if name in self._expected:
                self._expected[name] *= factor

    def start(self, name: str) -> None:
        """End the phase before, and tell of this one, if it is planned."""
        if name not in self._names:
            return
        self.end()
        self._current, self._current_begun, self._current_total = name, self._clock(), None
        self._tell(name)

    def part(self, done: int, total: int) -> None:
        """Expect the rest of the phase by what is done of it, and tell so from time to time."""
        if self._current is None or not done:
            return
        self._current_total = (self._clock() - self._current_begun) * total / done
        if done < total and self._clock() - self._told >= _SECONDS_BETWEEN_PARTS:
            self._tell(f"{self._current}, {done} of {total}")

    def end(self) -> None:
        """End the phase that it is in, if any."""
        if self._current is not None:
            self._taken[self._current] = self._clock() - self._current_begun
            self._current = None

    def left(self) -> float | None:
        """Expected seconds till the end; None where nothing has been expected yet."""
        if not self._expected:
            return None
        names = self._names
        at = names.index(self._current) if self._current else self._next()
        later = sum(
            self._expected.get(name, 0.0) for name in names[at + (self._current is not None) :]
        )
        return self._left_of_current() + later * self._slowness()

    def status(self) -> str:
        """``0:41 elapsed, about 2:10 left``."""
        elapsed = f"{_minutes(self._clock() - self._begun)} elapsed"
        left = self.left()
        return elapsed if left is None else f"{elapsed}, about {_about(left)} left"

    def _tell(self, what: str) -> None:
        assert self._current is not None
        self._told = self._clock()
        place = f"[{self._names.index(self._current) + 1}/{len(self._names)}]"
        self._logger.info("%s %s · %s", place, what, self.status())

    def _next(self) -> int:
        done = [self._names.index(name) for name in self._taken]
        return max(done, default=-1) + 1

    def _left_of_current(self) -> float:
        if self._current is None:
            return 0.0
        total = self._current_total
        if total is None:
            total = self._expected.get(self._current, 0.0) * self._slowness()
        return max(total - (self._clock() - self._current_begun), 0.0)

    def _slowness(self) -> float:
        measured = [name for name in self._taken if name in self._expected.keys() - self._apart]
        taken = sum(self._taken[name] for name in measured) + _PRIOR_SECONDS
        expected = sum(self._expected[name] for name in measured) + _PRIOR_SECONDS
        return min(max(taken / expected, _FASTEST), _SLOWEST)


def _minutes(seconds: float) -> str:
    """``m:ss``, or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _about(seconds: float | None) -> str:
    """Rounded as an estimate is: to 5 s, from a minute on to 10 s, from ten minutes on to one."""
    step = 5 if (seconds or 0) < 60 else 10 if (seconds or 0) < 600 else 60
    return _minutes(max(round((seconds or 0) / step), 1) * step)
