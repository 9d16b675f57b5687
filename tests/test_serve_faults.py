"""The server as a process under load: reloads, the end, clients that go away."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from recsys.recommender import Recommender
from recsys.request import Request
from tests.conftest import write_untrained_bundle

ROOT = Path(__file__).parents[1]


NUM_MANY = 100
_BODY = json.dumps({"user_ids": [101 + n % 90 for n in range(NUM_MANY)]}).encode()
MANY = (
    b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
"""A request that keeps a server busy for a while: a hundred lists."""


@contextmanager
def serving(
    bundle: Path, *options: str, descriptors: int | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process, and its host:port.

    Args:
        descriptors: that it may have; None for as many as this process.
    """
    # Quiet, since nobody reads what it prints after the first line, and a full pipe blocks.
    settings = [f"bundle={bundle}", "port=0", "device=cpu", "log_level=warning"]
    if not any(option.startswith("workers=") for option in options):
        # What one process does; several are the matter of test_serve_workers.
        settings.append("workers=1")
    settings += options
    command = [sys.executable, "serve.py", *settings]
    if descriptors is not None:
        command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *command]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            yield process, urlsplit(line.split(" (API: ")[0].split(": ")[1]).netloc
        finally:
            process.terminate()


def ask(address: str, path: str) -> dict:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as response:
        return json.load(response)


def metric(address: str, name: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


@pytest.mark.slow
def test_fifty_reloads_under_load_fail_no_request_and_mix_no_models(
    untrained_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(untrained_bundle, tmp_path / "first")
    other = write_untrained_bundle(tmp_path / "x", list(range(101, 181)), list(range(1001, 1031)))
    other.rename(tmp_path / "second")
    users = list(range(101, 191))
    expected = {}
    for name in ("first", "second"):
        model = Recommender.load(tmp_path / name)
        lists = model.recommend([Request(5, user_id=user) for user in users])
        expected[model.model_version] = {
            user: one.item_ids for user, one in zip(users, lists, strict=True)
        }
    stop = threading.Event()

    def load(address: str, first: int) -> list[tuple[int, int, dict]]:
        connection, found = HTTPConnection(address, timeout=10), []
        user = first
        while not stop.is_set():
            connection.request("GET", f"/recommend?user_id={user}&top_k=5")
            response = connection.getresponse()
            found.append((user, response.status, json.loads(response.read())))
            user = 101 + (user + 1) % 90
        connection.close()
        return found

    with (
        serving(tmp_path / "first", "cache.enabled=false") as (_, address),
        ThreadPoolExecutor(8) as clients,
    ):
        loads = [clients.submit(load, address, 101 + 10 * n) for n in range(8)]
        admin = HTTPConnection(address, timeout=60)
        try:
            for number in range(50):
                body = json.dumps({"name": ("second", "first")[number % 2]})
                headers = {"Content-Type": "application/json"}
                admin.request("POST", "/admin/reload", body, headers)
                response = admin.getresponse()
                assert (response.status, bool(response.read())) == (200, True)
        finally:
            stop.set()
            admin.close()
        found = [one for future in loads for one in future.result()]

    assert len(found) > 100
    assert {status for _, status, _ in found} == {200}
    assert {answer["model_version"] for _, _, answer in found} == set(expected)
    for user, _, answer in found:
        assert answer["top_items"] == expected[answer["model_version"]][user]


@pytest.mark.slow
def test_the_end_answers_every_request_that_was_accepted(untrained_bundle: Path) -> None:
    options = ("cache.enabled=false", "max_batch=1", "max_queue=100000", "deadline_ms=30000")
    with serving(untrained_bundle, *options) as (process, address):
        host, port = address.split(":")
        # A thousand lists: a busy machine, too, makes them in the time that the end leaves.
        sockets = [socket.create_connection((host, int(port)), timeout=20) for _ in range(10)]
        for one in sockets:
            one.sendall(MANY)
        # Once as many have been taken in as there are, the rest is the server's to answer.
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and metric(address, "recsys_queue_depth") == 0:
            pass
        time.sleep(0.05)
        waiting = metric(address, "recsys_queue_depth")
        process.send_signal(signal.SIGTERM)
        answers = [read_all(one) for one in sockets]
        assert process.wait(20) in (0, -signal.SIGTERM)
    assert waiting > 0
    assert all(answer.startswith(b"HTTP/1.1 200 OK") for answer in answers)
    assert all(answer.count(b'"source":"reranked"') == NUM_MANY for answer in answers)


def read_all(connection: socket.socket) -> bytes:
    with connection:
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.slow
def test_overload_is_refused_at_once_and_over_within_two_seconds(untrained_bundle: Path) -> None:
    options = ("cache.enabled=false", "max_batch=1", "max_queue=8")
    with serving(untrained_bundle, *options) as (_, address):

        def load(number: int) -> list[tuple[int, float, str | None]]:
            connection, found = HTTPConnection(address, timeout=10), []
            for turn in range(25):
                started = time.monotonic()
                connection.request("GET", f"/recommend?user_id={101 + (number + turn) % 90}")
                response = connection.getresponse()
                response.read()
                seconds = time.monotonic() - started
                found.append((response.status, seconds, response.headers["Retry-After"]))
            connection.close()
            return found

        with ThreadPoolExecutor(80) as clients:
            found = [one for part in clients.map(load, range(80)) for one in part]
        ended = time.monotonic()
        while metric(address, "recsys_queue_depth") > 0:
            assert time.monotonic() - ended < 2
        assert ask(address, "/recommend?user_id=101")["source"] == "reranked"

    statuses = [status for status, _, _ in found]
    assert set(statuses) == {200, 503}
    assert all(int(after) >= 1 for status, _, after in found if status == 503)
    accepted = sorted(seconds for status, seconds, _ in found if status == 200)
    assert accepted[int(0.99 * len(accepted))] < 3


@pytest.mark.slow
def test_hangup_loads_the_newest_bundle_and_keeps_the_old_one_when_that_is_broken(
    untrained_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(untrained_bundle, tmp_path / "first")
    other = write_untrained_bundle(tmp_path / "x", list(range(101, 181)), list(range(1001, 1031)))
    other.rename(tmp_path / "second")
    (tmp_path / "latest").symlink_to("first")
    with serving(tmp_path / "latest") as (process, address):
        before = ask(address, "/health/ready")["model_version"]
        (tmp_path / "next").symlink_to("second")
        (tmp_path / "next").replace(tmp_path / "latest")
        os.kill(process.pid, signal.SIGHUP)
        until = time.monotonic() + 20
        while (after := ask(address, "/health/ready")["model_version"]) == before:
            assert time.monotonic() < until
        (tmp_path / "second" / "index.faiss").unlink()
        os.kill(process.pid, signal.SIGHUP)
        time.sleep(0.5)
        assert ask(address, "/health/ready")["model_version"] == after
        assert ask(address, "/recommend?user_id=101")["source"] == "reranked"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
def test_silent_connections_and_half_bodies_keep_nobody_out(
    untrained_bundle: Path, tmp_path: Path
) -> None:
    half = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
    half += b"Content-Type: application/json\r\n\r\n{"
    store = f"store.url=sqlite+aiosqlite:///{tmp_path}/events.db"
    with serving(untrained_bundle, store, descriptors=256) as (process, address):
        host, port = address.split(":")
        held = [socket.create_connection((host, int(port)), timeout=20) for _ in range(400)]
        for one in held[::2]:
            with suppress(OSError):  # may have had to make room already
                one.sendall(half)
        assert ask(address, "/recommend?user_id=101")["source"] == "reranked"
        assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < 256
        connection = HTTPConnection(address, timeout=20)
        event = {"event_id": "a", "user_id": 101, "item_id": 1003, "type": "like"}
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/events", json.dumps({"events": [event]}), headers)
        assert connection.getresponse().status == 200
        connection.close()
        for one in held:
            one.close()


@pytest.mark.slow
def test_a_head_without_end_is_refused(untrained_bundle: Path) -> None:
    with serving(untrained_bundle) as (_, address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nB: " + b"b" * 100_000)
            assert connection.recv(65536).startswith(b"HTTP/1.1 431 ")
        assert ask(address, "/health/live") == {"status": "ok"}
