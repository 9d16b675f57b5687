"""What a piece of work is expected to take, by what it has taken."""

import time

_SMOOTHING = 0.2
_HALF_LIFE_SECONDS = 5.0


class Duration:
    """A moving average that fades.

    It fades so that what was slow once is tried again after a while.
    """

    def __init__(self) -> None:
        self._average: float | None = None
        self._measured = 0.0

    def add(self, seconds: float) -> None:
        """It took so long."""
        old = seconds if self._average is None else self._average
        # What gets slow is believed at once, what gets fast after some times.
        self._average = max(seconds, old + _SMOOTHING * (seconds - old))
        self._measured = time.monotonic()

    def expected(self) -> float:
        """Seconds; 0 when nothing is known."""
        if self._average is None:
            return 0.0
        idle = time.monotonic() - self._measured
        return float(self._average * 0.5 ** (idle / _HALF_LIFE_SECONDS))
