"""A log that nobody reads."""

import logging
import os
import threading

import pytest

from recsys.api import log_queue
from recsys.api.log_queue import QueuedStreamHandler


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, "", 0, message, (), None)


def test_a_full_pipe_stops_nobody_and_what_is_dropped_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_queue, "MAX_WAITING", 100)
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading) as reader:
        handler = QueuedStreamHandler(stream)
        for number in range(1000):  # of a thousand bytes each, more than a pipe and the queue hold
            handler.emit(record(f"{number:04} " + "a" * 1000))
        lines: list[str] = []

        def read() -> None:
            while not lines or "last" not in lines[-1]:
                lines.append(reader.readline())

        taking = threading.Thread(target=read, daemon=True)
        taking.start()
        handler.flush()
        handler.emit(record("last"))
        taking.join(20)
        assert not taking.is_alive()
    assert lines.pop() == "last\n"
    dropped = [int(line.split()[0]) for line in lines if line.endswith("dropped\n")]
    kept = [int(line[:4]) for line in lines if line.endswith("a\n")]
    assert dropped
    assert len(kept) + sum(dropped) == 1000
    assert kept == sorted(kept)
    assert kept[:50] == list(range(50))


def test_all_is_written_at_the_end() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as reader:
        with os.fdopen(writing, "w") as stream:
            handler = QueuedStreamHandler(stream)
            for number in range(50):
                handler.handle(record(str(number)))
            handler.flush()
        assert reader.read().split() == [str(number) for number in range(50)]
