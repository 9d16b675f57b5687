"""Lines of the log on their way to the standard error stream, which may be slow to take them."""

import logging
import queue
import sys
import threading
import time
from typing import TextIO

MAX_WAITING = 10_000
"""Lines; a few megabytes."""
_SECONDS_TO_FLUSH = 2.0
_SECONDS_BETWEEN_LOOKS = 0.01


class QueuedStreamHandler(logging.Handler):
    """Writes from a thread of its own: a full pipe stops nobody else, and costs lines alone.

    Args:
        stream: that is written to; None for the standard error stream.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._stream = sys.stderr if stream is None else stream
        self._lines: queue.Queue[str] = queue.Queue(MAX_WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Put the record's line into the queue; where that is full it is dropped."""
        try:
            # Here and not in the thread, since it reads the id of the request.
            line = self.format(record)
            if self._dropped:
                told = logging.LogRecord(
                    __name__, logging.WARNING, "", 0, "%d lines dropped", (self._dropped,), None
                )
                self._lines.put_nowait(self.format(told))
                self._dropped = 0
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all is written, for a short while."""
        until = time.monotonic() + _SECONDS_TO_FLUSH
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # closed: nobody reads it any more
                pass
            finally:
                self._lines.task_done()
