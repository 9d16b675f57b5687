"""A sign of life where a long step says nothing, for logs that nobody watches as they grow."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS = 30.0


@contextmanager
def heartbeat(
    logger: logging.Logger, seconds: float = SECONDS, status: Callable[[], str] | None = None
) -> Iterator[None]:
    """While it is open, a line after each ``seconds`` in which the logger has had none.

    The line repeats the last message, and says for how long that has been so, and ``status``, by
    default for how long all.
    """
    started = time.monotonic()
    last = _LastMessage(started)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(max(last.spoken + seconds - time.monotonic(), 0.05)):
            now = time.monotonic()
            if now - last.spoken >= seconds:
                last.spoken = now
                logger.info(
                    "... still at: %s (%.0f s; %s)",
                    *(last.message, now - last.at),
                    f"{now - started:.0f} s in all" if status is None else status(),
                    extra={_OWN: True},
                )

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    logger.addHandler(last)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        logger.removeHandler(last)


_OWN = "heartbeat"


class _LastMessage(logging.Handler):
    """message: the last one that is no heartbeat. at, spoken: when it came; when any line came."""

    def __init__(self, started: float) -> None:
        super().__init__()
        self.message = "start"
        self.at = self.spoken = started

    def emit(self, record: logging.LogRecord) -> None:
        if not hasattr(record, _OWN):
            # Of a line of phases without what it said of the time, which has gone on.
            self.message = record.getMessage().partition(" · ")[0]
            self.at = self.spoken = time.monotonic()
