"""Servers as processes, and wrk to drive them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from benchmarks.runs import ROOT
from recsys.errors import InputError
from recsys.schema import ExternalId

SECONDS_TO_START = 300
"""A large bundle takes its time, more so beside others."""
_TICKS = os.sysconf("SC_CLK_TCK")


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
        InputError: when it ends, or does not answer in five minutes.
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


def processes(pid: int) -> list[int]:
    """The process and its descendants."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = (child for one in lists for child in one.read_text().split())
    return [pid, *(found for child in children for found in processes(int(child)))]


def cpu_seconds(pid: int) -> float:
    """That the process, its descendants and those that ended have taken, in user and kernel."""
    ticks = 0
    for one in processes(pid):
        # The name, in parentheses, may hold anything.
        fields = Path(f"/proc/{one}/stat").read_text().rsplit(") ", 1)[1].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS


def write_users(ids: Iterable[ExternalId], folder: Path, name: str) -> Path:
    """A file for ``drive``."""
    path = folder / f"{name}.txt"
    path.write_text("".join(f"{quote(str(one))}\n" for one in ids))
    return path


def drive(
    server: Server, users: Path, connections: int, seconds: int, start: int | None = None
) -> dict[str, Any]:
    """Requests per second, percentiles in milliseconds, CPU per request and bad answers.

    Args:
        users: of ``write_users``. start: where in it to begin, with each user in turn; None asks
            for users at random.

    Returns:
        ``asked``: requests that were sent, ``requests``: that were answered. ``cpu_ms``: CPU time
        of all processes of the server by request. ``bad``: answers that were not 2xx.

    Raises:
        InputError: when wrk fails.
    """
    script = Path(__file__).with_name("users.lua")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    environment = {**os.environ, "USERS_FILE": str(users)}
    if start is not None:
        environment["START"] = str(start)
    before = cpu_seconds(server.pid)
    done = subprocess.run([*command, server.url], env=environment, capture_output=True, text=True)
    used = cpu_seconds(server.pid) - before
    lines = [text for text in done.stdout.splitlines() if text.startswith("{")]
    if done.returncode or len(lines) != 1:
        told = (done.stderr or done.stdout).strip().splitlines()[:1]
        expected = f"figures from wrk of {server.url}"
        raise InputError(expected, " ".join(told) or "none", "try again")
    found: dict[str, Any] = json.loads(lines[0])
    rates = {
        "rps": found["requests"] / found["seconds"],
        "cpu_ms": 1e3 * used / max(found["requests"], 1),
    }
    return {**found, **rates}
