"""``serve.py workers=2`` as processes: one port, one set of metrics, one model; ends and deaths."""

import http.client
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import pytest

from recsys.recommender import Recommender
from recsys.request import Request
from tests.conftest import write_untrained_bundle
from tests.test_serve_faults import MANY, NUM_MANY, read_all
from tests.workers import (
    Server,
    get,
    is_running,
    metric,
    open_sockets,
    serving,
    tcp,
    until,
)

ROOT = Path(__file__).parents[1]
USERS = list(range(101, 191))

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks into /proc")


@pytest.fixture
def root(untrained_bundle: Path, tmp_path: Path) -> Path:
    """Two bundles, of 90 and of 80 users; ``latest`` names the first."""
    shutil.copytree(untrained_bundle, tmp_path / "first")
    other = write_untrained_bundle(tmp_path / "x", list(range(101, 181)), list(range(1001, 1031)))
    other.rename(tmp_path / "second")
    point_latest(tmp_path, "first")
    return tmp_path


def point_latest(root: Path, name: str) -> None:
    (root / "next").symlink_to(name)
    (root / "next").replace(root / "latest")


@dataclass
class Client:
    """Asks one request after the other on one connection, until told to stop."""

    server: Server
    first_user: int
    stop: threading.Event
    worker: int = 0
    failures: int = 0
    answers: list[tuple[int, int, dict]] = field(default_factory=list)

    def __call__(self) -> "Client":
        connection = self._connected()
        self.worker = self.server.owner(connection)
        user = self.first_user
        while not self.stop.is_set():
            user = 101 + (user - 100) % 90
            try:
                self.answers.append((user, *get(connection, f"/recommend?user_id={user}&top_k=5")))
            except (OSError, http.client.HTTPException):
                self.failures += 1
                connection = self._again()
        connection.close()
        return self

    def _again(self) -> HTTPConnection:
        while True:
            try:
                return self._connected()
            except ConnectionError:  # by the worker that is about to be gone
                self.failures += 1

    def _connected(self) -> HTTPConnection:
        connection = self.server.connect()
        get(connection, "/health/live")
        return connection


@contextmanager
def load(server: Server, number: int) -> Iterator[list[Client]]:
    """Clients, at work within the block."""
    stop = threading.Event()
    clients = [Client(server, 101 + 5 * n, stop) for n in range(number)]
    with ThreadPoolExecutor(number) as pool:
        done = [pool.submit(client) for client in clients]
        try:
            until(lambda: all(client.answers for client in clients) or any(d.done() for d in done))
            yield clients
        finally:
            stop.set()
        for one in done:
            one.result()


def test_both_answer_and_either_tells_the_metrics_of_both(root: Path) -> None:
    recommended = 'recsys_requests_total{route="/recommend",status="200"}'
    with serving(root / "latest", root / "tmp", "cache.enabled=false") as server:
        assert len(server.workers()) == 2
        connections = [server.connect() for _ in range(24)]
        for user, connection in zip(USERS, connections, strict=False):
            assert get(connection, f"/recommend?user_id={user}")[0] == 200
        assert {server.owner(connection) for connection in connections} == server.workers()

        for connection in server.to_each_worker().values():
            until(lambda connection=connection: metric(connection, recommended) == 24)
            seconds = 'recsys_request_seconds_count{route="/recommend"}'
            assert metric(connection, seconds) == 24
            assert metric(connection, "recsys_lists_total") == 24
            assert metric(connection, "recsys_batch_size_sum") == 24
            assert metric(connection, "recsys_model_info") == 2


def test_what_only_one_has_is_told_by_the_other_soon(root: Path) -> None:
    with serving(root / "latest", root / "tmp") as server:
        one, other = server.to_each_worker().values()
        get(one, "/recommend?user_id=101")
        own = metric(one, "recsys_cache_bytes")
        assert own > 0
        until(lambda: metric(other, "recsys_cache_bytes") == own)


@pytest.mark.slow
def test_a_killed_worker_takes_its_own_connections_along_and_is_replaced(root: Path) -> None:
    total = 'recsys_requests_total{route="/recommend",status="200"}'
    with serving(root / "latest", root / "tmp", "cache.enabled=false") as server:
        with load(server, 12) as clients:
            before = server.workers()
            victim = clients[0].worker
            own = [client for client in clients if client.worker == victim]
            others = [client for client in clients if client.worker != victim]
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            until(lambda: len(server.workers() - before) == 1)
            until(server.serves_with_two)
            assert time.monotonic() - killed < 20
            time.sleep(0.5)
        assert all(1 <= client.failures <= 3 for client in own)
        assert [client.failures for client in others] == [0] * len(others)
        found = [answer for client in clients for answer in client.answers]
        assert {status for _, status, _ in found} == {200}

        # Of each request under way in the killed one, either end may have taken note, or neither.
        connections = server.to_each_worker()
        assert victim not in connections
        time.sleep(0.5)
        counted = metric(connections[min(connections)], total)
        assert abs(counted - len(found)) <= len(own)
        for connection in connections.values():
            for user in USERS:
                assert get(connection, f"/recommend?user_id={user}")[0] == 200
        for connection in connections.values():
            until(lambda c=connection: metric(c, total) == counted + 2 * len(USERS))


@pytest.mark.slow
def test_reloads_reach_all_workers_and_fail_or_mix_no_request(root: Path) -> None:
    expected = {}
    for name in ("first", "second"):
        model = Recommender.load(root / name)
        lists = model.recommend([Request(5, user_id=user) for user in USERS])
        items = {user: one.item_ids for user, one in zip(USERS, lists, strict=True)}
        expected[name] = (model.model_version, items)
    by_version = dict(expected.values())
    with serving(root / "latest", root / "tmp", "cache.enabled=false") as server:
        each = server.to_each_worker().values()

        def serve_all(name: str) -> bool:
            found = {get(one, "/health/ready")[1]["model_version"] for one in each}
            return found == {expected[name][0]}

        with load(server, 8) as clients:
            for _ in range(5):
                for name in ("second", "first"):
                    answer = server.reload(name)
                    assert answer == (200, {"status": "ok", "model_version": expected[name][0]})
                    assert serve_all(name)
                    assert server.metric("recsys_model_info") == 2
            for name in ("second", "first"):
                point_latest(root, name)
                server.process.send_signal(signal.SIGHUP)
                until(lambda name=name: serve_all(name))
        assert [client.failures for client in clients] == [0] * len(clients)
        found = [answer for client in clients for answer in client.answers]
        assert len(found) > 100
        assert {status for _, status, _ in found} == {200}
        assert {answer["model_version"] for _, _, answer in found} == set(by_version)
        for user, _, answer in found:
            assert answer["top_items"] == by_version[answer["model_version"]][user]


@pytest.mark.slow
def test_a_corrupt_bundle_is_refused_everywhere(root: Path) -> None:
    (root / "second" / "index.faiss").write_bytes(b"")
    with serving(root / "latest", root / "tmp") as server:
        version = server.version()
        informed = f'recsys_model_info{{version="{version}"}}'

        status, answer = server.reload("second")

        assert status == 400
        assert "index.faiss" in answer["detail"]
        point_latest(root, "second")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "reload refused" in server.errors.read_text())
        assert "index.faiss" in server.errors.read_text()
        assert server.metric(informed) == server.metric("recsys_model_info") == 2


@pytest.mark.slow
def test_a_bundle_of_another_data_set_is_refused_everywhere(root: Path) -> None:
    # Ids of the same types, so that nothing but the items tells.
    other = write_untrained_bundle(root / "x", list(range(101, 181)), list(range(1, 31)))
    other.rename(root / "other")
    with serving(root / "latest", root / "tmp") as server:
        version = server.version()
        status, answer = server.reload("other")
        assert status == 400
        assert "expected an event store of the bundle's data set" in answer["detail"]
        assert server.metric(f'recsys_model_info{{version="{version}"}}') == 2
        for connection in server.to_each_worker().values():
            assert get(connection, "/recommend?user_id=101")[1]["model_version"] == version


@pytest.mark.slow
def test_a_new_worker_serves_what_the_others_serve(root: Path) -> None:
    with serving(root / "latest", root / "tmp") as server:
        first = server.version()
        second = server.reload("second")[1]["model_version"]
        assert second != first
        for _ in range(2):
            server.kill_one()
            until(server.serves_with_two)
        assert server.metric(f'recsys_model_info{{version="{second}"}}') == 2

        # With nothing to load it is tried again and again, while the other one answers.
        (root / "second").rename(root / "away")
        server.kill_one()
        until(lambda: "does not start; again in" in server.errors.read_text())
        assert server.version() == second
        (root / "away").rename(root / "second")
        until(server.serves_with_two)


@pytest.mark.slow
def test_a_bundle_that_was_replaced_in_its_folder_is_loaded_by_all(root: Path) -> None:
    with serving(root / "first", root / "tmp") as server:
        old = server.version()
        (root / "first").rename(root / "away")
        (root / "second").rename(root / "first")

        server.kill_one()

        until(server.serves_with_two)
        until(lambda: server.metric(f'recsys_model_info{{version="{old}"}}') == 0)
        assert server.metric("recsys_model_info") == 2


@pytest.mark.slow
def test_the_end_answers_every_request_that_was_accepted(root: Path) -> None:
    options = ("cache.enabled=false", "max_batch=1", "deadline_ms=30000", "max_queue=100000")
    with ExitStack() as stack:
        server = stack.enter_context(serving(root / "latest", root / "tmp", *options))
        workers = server.workers()
        # Some thousand lists: a busy machine, too, makes them in the time that the end leaves.
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            for _ in range(12)
        ]
        for one in sockets:
            one.sendall(MANY)

        def all_read() -> bool:
            """Whether the workers have taken in every connection, and all that was sent.

            One that has all its answers may be closed by now, where the others took long.
            """
            found = tcp(server.port)
            held = set().union(*(open_sockets(worker) for worker in workers))
            return {one.inode for one in found} <= held and not any(one.unread for one in found)

        until(all_read)
        waiting = len(sockets) - len(select.select(sockets, [], [], 0)[0])
        server.process.send_signal(signal.SIGTERM)
        answers = [read_all(one) for one in sockets]
        assert server.process.wait(20) == 0
        assert waiting > 0
        assert all(answer.startswith(b"HTTP/1.1 200 OK") for answer in answers)
        assert all(answer.count(b'"source":"reranked"') == NUM_MANY for answer in answers)
        assert not any(is_running(worker) for worker in workers)
        assert list((root / "tmp").iterdir()) == []
        assert server.errors.read_text() == ""


@pytest.mark.slow
def test_without_the_supervisor_the_workers_answer_what_they_have_and_end(root: Path) -> None:
    with serving(root / "latest", root / "tmp") as server:
        workers = server.workers()
        server.process.kill()
        server.process.wait(10)
        until(lambda: not any(is_running(worker) for worker in workers), seconds=15)
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        assert list((root / "tmp").iterdir()) == []


def refused(*arguments: str) -> str:
    """The one line that a server with two workers ends with."""
    command = [sys.executable, "serve.py", "workers=2", "device=cpu", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    return done.stderr


def test_what_cannot_be_served_ends_in_one_line(root: Path) -> None:
    assert refused(f"bundle={root}/none", "port=0") == (
        f"error: expected a bundle in {root}/none; found no such folder; "
        f"run: python train.py stage=all, or set bundle= to one of {root}/first, {root}/second\n"
    )
    assert "expected a rate such as 20/second; found 'often'" in refused(
        f"bundle={root}/first", "port=0", "rate_limit=often"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port={port}; found address already in use" in refused(
            f"bundle={root}/first", f"port={port}"
        )
