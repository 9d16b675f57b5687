"""Servers as processes, and wrk to drive them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.runs import ROOT
from recsys.errors import InputError

SECONDS_TO_START = 60


class Server(NamedTuple):
    """A server that answers. seconds: from its start until it did."""

    url: str
    pid: int
    seconds: float


@contextmanager
def serving(command: Sequence[str], path: str) -> Iterator[Server]:
    """A server process on a free port, once it answers.

    Args:
        command: for Python; ``{port}`` stands for the port. path: answers 200 when it is ready.

    Raises:
        InputError: when it ends, or does not answer within a minute.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    parts = [sys.executable, *(part.format(port=port) for part in command)]
    started = time.monotonic()
    with subprocess.Popen(parts, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            until = started + SECONDS_TO_START
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).close()
                    break
                except OSError as error:
                    if process.poll() is not None or time.monotonic() > until:
                        found = f"{command[0]} that does not answer"
                        raise InputError("a server", found, "see above") from error
                    time.sleep(0.02)
            ready = time.monotonic() - started
            yield Server(f"http://127.0.0.1:{port}", process.pid, ready)
        finally:
            process.terminate()


def need_wrk() -> None:
    """Raise InputError when wrk is missing."""
    if shutil.which("wrk") is None:
        raise InputError("the program wrk", "none on the path", "run: apt install wrk")


def drive(url: str, users: str, connections: int, seconds: int) -> dict[str, Any]:
    """Requests per second, percentiles in milliseconds, and answers that were not 2xx.

    Args:
        users: ids to choose from, a comma list.

    Raises:
        InputError: when wrk fails.
    """
    script = Path(__file__).with_name("random_users.lua")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    done = subprocess.run(
        [*command, url], env={**os.environ, "USERS": users}, capture_output=True, text=True
    )
    lines = [text for text in done.stdout.splitlines() if text.startswith("{")]
    if done.returncode or len(lines) != 1:
        told = (done.stderr or done.stdout).strip().splitlines()[:1]
        raise InputError(f"figures from wrk of {url}", " ".join(told) or "none", "try again")
    found: dict[str, Any] = json.loads(lines[0])
    return {**found, "rps": found["requests"] / found["seconds"]}
