"""No acknowledged event is lost when servers are killed, and lists go on without the store."""

import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.live import ask, event, post, recommended, stored_event_ids
from tests.postgres import Cluster
from tests.workers import Server, serving, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks into /proc"),
]

NUM_EVENTS, NUM_CONNECTIONS, NUM_KILLS = 10_000, 16, 2
ITEMS = list(range(1001, 1031))


def kill_everything(server: Server) -> None:
    processes = [*server.workers(), server.process.pid]
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    server.process.wait()


class Sender:
    """Sends events in batches until each has been acknowledged, across ends of the server."""

    def __init__(self, batches: list[list[dict[str, Any]]]) -> None:
        self.waiting = batches
        self.acknowledged: list[str] = []
        self.address: str | None = None
        self.lock = threading.Lock()
        self.given_up = threading.Event()

    def run(self) -> None:
        connection: HTTPConnection | None = None
        while not self.given_up.is_set():
            with self.lock:
                if not self.waiting:
                    break
                batch = self.waiting.pop()
            try:
                if connection is None:
                    assert self.address is not None
                    connection = HTTPConnection(self.address, timeout=10)
                status, answer = post(connection, *batch)
                if (
                    status == 503
                ):  # a commit may take long on a busy machine; nothing is known of it
                    raise ConnectionError(answer["detail"])
                assert status == 200, answer
                assert answer["accepted"] + answer["duplicates"] == len(batch)
            except (OSError, HTTPException):
                if connection is not None:
                    connection.close()
                connection = None
                with self.lock:
                    self.waiting.append(batch)
                time.sleep(0.05)
            else:
                with self.lock:
                    self.acknowledged += [one["event_id"] for one in batch]
        if connection is not None:
            connection.close()


def test_kill_9_loses_and_doubles_no_acknowledged_event(
    untrained_bundle: Path, store_url: str, tmp_path: Path
) -> None:
    rng = random.Random(0)
    events = [event(f"e{n}", rng.randrange(101, 191), rng.choice(ITEMS)) for n in range(NUM_EVENTS)]
    sender = Sender([events[start : start + 10] for start in range(0, NUM_EVENTS, 10)])
    sending: list[Future[None]] = []
    with ThreadPoolExecutor(NUM_CONNECTIONS) as threads, contextlib.ExitStack() as last:
        last.callback(sender.given_up.set)  # else they would send to no server for ever
        for life in range(NUM_KILLS + 1):
            folder, option = tmp_path / f"life{life}", f"store.url={store_url}"
            with serving(untrained_bundle, folder, option) as server:
                sender.address = server.address
                if not sending:
                    sending = [threads.submit(sender.run) for _ in range(NUM_CONNECTIONS)]
                if life < NUM_KILLS:
                    enough = NUM_EVENTS * (life + 1) // (NUM_KILLS + 1)
                    until(lambda enough=enough: len(sender.acknowledged) >= enough, seconds=90)
                    kill_everything(server)
                    acknowledged = set(sender.acknowledged)
                    assert acknowledged <= set(stored_event_ids(store_url))
                else:
                    for one in sending:
                        one.result(timeout=90)
    stored = stored_event_ids(store_url)
    assert sorted(stored) == sorted(one["event_id"] for one in events)
    assert sorted(sender.acknowledged) == sorted(stored)


def test_behind_a_lock_lists_go_on_and_events_are_refused_until_it_is_gone(
    untrained_bundle: Path, tmp_path: Path
) -> None:
    file = tmp_path / "events.db"
    options = (f"store.url=sqlite+aiosqlite:///{file}", "store.timeout_s=0.5")
    with serving(untrained_bundle, tmp_path / "x", *options) as server:
        connection = server.connect()
        assert post(connection, event("a", 104, 1020))[0] == 200
        known = recommended(connection, 104)
        assert "degraded" not in known
        lock = sqlite3.connect(file, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        status, answer = post(connection, event("b", 104, 1021))
        assert status == 503
        assert "the event store" in answer["detail"]
        assert time.monotonic() - started < 2
        degraded = recommended(connection, 104)
        assert degraded.pop("degraded") == ["store"]
        assert degraded == known
        lock.execute("ROLLBACK")
        lock.close()
        until(lambda: "degraded" not in recommended(connection, 104), seconds=5)
        assert post(connection, event("b", 104, 1021))[0] == 200
    assert sorted(stored_event_ids(f"sqlite+aiosqlite:///{file}")) == ["a", "b"]


def test_a_lock_is_noticed_without_any_event(untrained_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    options = (f"store.url=sqlite+aiosqlite:///{file}", "store.timeout_s=0.5")
    with serving(untrained_bundle, tmp_path / "x", *options) as server:
        connection = server.connect()
        recommended(connection, 104)
        lock = sqlite3.connect(file, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        until(lambda: "degraded" in recommended(connection, 104), seconds=5)
        # Workers tell each other their metrics once in a while.
        until(lambda: server.metric("recsys_store_up") < 2, seconds=5)
        lock.close()
        until(lambda: "degraded" not in recommended(connection, 104), seconds=5)


def test_lists_go_on_without_postgresql_until_it_is_back(
    text_bundle: Path, postgres: Cluster, postgres_url: str, tmp_path: Path
) -> None:
    options = (f"store.url={postgres_url}", "store.timeout_s=0.5")
    with serving(text_bundle, tmp_path / "x", *options) as server:
        connections = list(server.to_each_worker().values())
        first = connections[0]
        assert post(first, event("a", 104, 1020))[0] == 200
        known = recommended(first, 104)
        until(lambda: recommended(connections[1], 104) == known, seconds=2)
        postgres.stop()
        try:
            for method, path, body in (
                ("POST", "/events", {"events": [event("b", 104, 1021)]}),
                ("PUT", "/items/5001", {"title": "New"}),
                ("DELETE", "/users/105", None),
            ):
                assert ask(first, method, path, body)[0] == 503
                # The server closes a connection that says nothing for five seconds.
                recommended(connections[1], 104)
            until(lambda: sum("degraded" in recommended(one, 104) for one in connections) == 2)
            for connection in connections:
                degraded = recommended(connection, 104)
                assert degraded.pop("degraded") == ["store"]
                assert degraded == known
                # Nothing of this user was in memory.
                assert recommended(connection, 133)["source"] == "reranked"
        finally:
            postgres.start()
        # That may take longer than the server keeps a connection that says nothing.
        connections = list(server.to_each_worker().values())
        until(lambda: sum("degraded" in recommended(one, 104) for one in connections) == 0)
        assert post(connections[0], event("b", 104, 1021))[0] == 200
        until(lambda: sum(1021 in recommended(c, 104)["top_items"] for c in connections) == 0)
    assert sorted(stored_event_ids(postgres_url)) == ["a", "b"]
