"""Events, items and deletions while ``serve.py`` runs, in the processes that a user would have."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from recsys.data import generator
from recsys.data.catalog import item_text
from recsys.events.store import EventStore
from tests.test_serve_workers import Server, serving, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks into /proc"),
]

NUM_EVENTS, NUM_CONNECTIONS, NUM_KILLS = 10_000, 16, 2
ITEMS = list(range(1001, 1031))


def ask(
    connection: HTTPConnection, method: str, path: str, body: Any = None
) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def event(event_id: str, user_id: int, item_id: int, type_: str = "like") -> dict[str, Any]:
    return {"event_id": event_id, "user_id": user_id, "item_id": item_id, "type": type_}


def post(connection: HTTPConnection, *events: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return ask(connection, "POST", "/events", {"events": list(events)})


def recommended(connection: HTTPConnection, user_id: int, top_k: int = 30) -> dict[str, Any]:
    status, found = ask(connection, "GET", f"/recommend?user_id={user_id}&top_k={top_k}")
    assert status == 200, found
    return found


def stored_event_ids(url: str) -> list[str]:
    async def read() -> list[str]:
        store = await EventStore.open(url)
        try:
            return [one.event_id async for page in store.events() for one in page]
        finally:
            await store.close()

    return asyncio.run(read())


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


def test_an_event_counts_on_the_other_worker_within_100_ms(
    untrained_bundle: Path, store_url: str, tmp_path: Path
) -> None:
    with serving(untrained_bundle, tmp_path / "x", f"store.url={store_url}") as server:
        first, second = server.to_each_worker().values()
        taken = []
        for turn in range(20):
            user = 101 + turn
            item = recommended(second, user)["top_items"][0]
            assert post(first, event(f"t{turn}", user, item))[0] == 200
            started = time.monotonic()
            # The worker that took it knows it at once.
            assert item not in recommended(first, user)["top_items"]
            while item in recommended(second, user)["top_items"]:
                assert time.monotonic() - started < 5
            taken.append(time.monotonic() - started)
        assert max(taken) < 0.1, taken


def test_events_change_the_taste_and_dismissed_items_go(
    untrained_bundle: Path, store_url: str, tmp_path: Path
) -> None:
    with serving(untrained_bundle, tmp_path / "x", f"store.url={store_url}") as server:
        connection = server.connect()
        # A user whom training never met.
        assert recommended(connection, 7)["source"] == "popular"
        assert post(connection, event("a", 7, 1003), event("b", 7, 1005, "dismiss"))[0] == 200
        by_events = recommended(connection, 7)
        assert by_events["source"] == "reranked"
        _, answer = ask(connection, "POST", "/recommend", {"history": [1003], "top_k": 30})
        (by_history,) = answer["results"]
        by_history["top_items"].remove(1005)
        assert by_events["top_items"] == by_history["top_items"]
        # What is sent again counts once.
        assert post(connection, event("a", 7, 1003))[1] == {"accepted": 0, "duplicates": 1}


def test_a_deleted_user_is_forgotten_by_all_workers_and_after_a_restart(
    untrained_bundle: Path, store_url: str, tmp_path: Path
) -> None:
    option = f"store.url={store_url}"
    with serving(untrained_bundle, tmp_path / "x", option) as server:
        first, second = server.to_each_worker().values()
        for connection in (first, second):
            assert recommended(connection, 104)["source"] == "reranked"
        assert post(first, event("a", 104, 1020))[0] == 200
        assert ask(first, "DELETE", "/users/104") == (200, {"user_id": 104, "forgotten": True})
        assert recommended(first, 104)["source"] == "popular"
        until(lambda: recommended(second, 104)["source"] == "popular", seconds=1)
        assert recommended(first, 105)["source"] == "reranked"
    assert stored_event_ids(store_url) == []
    with serving(untrained_bundle, tmp_path / "y", option) as server:
        connection = server.connect()
        assert recommended(connection, 104)["source"] == "popular"
        assert post(connection, event("b", 104, 1003))[0] == 200
        assert recommended(connection, 104)["source"] == "reranked"


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
        assert server.metric("recsys_store_up") < 2
        lock.close()
        until(lambda: "degraded" not in recommended(connection, 104), seconds=5)


def test_a_store_for_other_ids_ends_in_one_line(
    untrained_bundle: Path, string_id_bundle: Path, tmp_path: Path
) -> None:
    option = f"store.url=sqlite+aiosqlite:///{tmp_path}/events.db"
    with serving(untrained_bundle, tmp_path / "x", option):
        pass
    command = ["serve.py", f"bundle={string_id_bundle}", "device=cpu", "port=0", option]
    for more in ("workers=1", "workers=2"):
        done = subprocess.run(
            [os.sys.executable, *command, more],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2
        assert done.stderr.strip().splitlines()[-1].startswith("error: expected an event store for")
        assert "Traceback" not in done.stderr


@contextmanager
def asked_all_the_time(server: Server) -> Iterator[list[int]]:
    """Statuses of requests for lists that come one after the other meanwhile."""
    statuses: list[int] = []
    done = threading.Event()

    def run() -> None:
        connection = HTTPConnection(server.address, timeout=20)
        while not done.is_set():
            path = f"/recommend?user_id={101 + len(statuses) % 90}"
            statuses.append(ask(connection, "GET", path)[0])
            time.sleep(0.01)
        connection.close()

    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(run) for _ in range(2)]
        try:
            yield statuses
        finally:
            done.set()
        for one in running:
            one.result()


def found_by_its_text(connection: HTTPConnection, item: dict[str, Any]) -> list[int]:
    query = item_text(item["title"], item["year"], "|".join(item["genres"]), item["description"])
    wish = {"query": query, "top_k": 20}
    status, answer = ask(connection, "POST", "/recommend", wish)
    assert status == 200, answer
    items: list[int] = answer["results"][0]["top_items"]
    return items


def missing(connection: HTTPConnection, item_ids: list[int]) -> set[int]:
    """Those that no list can hold."""
    found: set[int] = set()
    for start in range(0, len(item_ids), 100):
        some = item_ids[start : start + 100]
        body = {"history": [1001], "top_k": 100, "rules": {"allow": some}}
        found |= set(ask(connection, "POST", "/recommend", body)[1]["results"][0]["top_items"])
    return set(item_ids) - found


@pytest.mark.timeout(900)
def test_a_thousand_new_items_are_recommended_at_once_and_after_a_restart(
    text_bundle: Path, tmp_path: Path
) -> None:
    frame = generator.load(num_users=20, num_items=1000, num_interactions=200).items
    new = {
        5000 + row: {
            "title": one.title,
            "description": one.description,
            "genres": one.genres.split("|"),
            "year": int(one.year),
        }
        for row, one in enumerate(frame.itertuples())
    }
    options = (f"store.url=sqlite+aiosqlite:///{tmp_path}/events.db", "deadline_ms=60000")
    waiting, lost = list(new), []
    lock = threading.Lock()

    def put_all(server: Server) -> None:
        connection = HTTPConnection(server.address, timeout=60)
        while True:
            with lock:
                if not waiting:
                    break
                item_id = waiting.pop()
            status, answer = ask(connection, "PUT", f"/items/{item_id}", new[item_id])
            assert status == 200, answer
            if item_id not in found_by_its_text(connection, new[item_id]):
                lost.append(item_id)
        connection.close()

    with serving(text_bundle, tmp_path / "x", *options) as server:
        with asked_all_the_time(server) as statuses, ThreadPoolExecutor(4) as threads:
            for one in [threads.submit(put_all, server) for _ in range(4)]:
                one.result()
        assert set(statuses) == {200}
        assert not lost
        first, second = server.to_each_worker().values()
        for connection in (first, second):
            until(lambda connection=connection: not missing(connection, list(new)), seconds=2)
    with serving(text_bundle, tmp_path / "y", *options) as server:
        connection = server.connect()
        assert not missing(connection, list(new))
        for item_id in list(new)[::20]:
            assert item_id in found_by_its_text(connection, new[item_id])
