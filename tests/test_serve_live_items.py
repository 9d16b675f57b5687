"""Items that are put into a running server, by the processes that a user would have."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from recsys.data import generator
from recsys.data.catalog import item_text
from tests.live import ask
from tests.workers import Server, serving, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks into /proc"),
]


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
def test_hundreds_of_new_items_are_recommended_at_once_and_after_a_restart(
    text_bundle: Path, tmp_path: Path
) -> None:
    frame = generator.load(num_users=20, num_items=300, num_interactions=200).items
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


def test_every_worker_has_places_for_new_items_in_long_lists(
    text_bundle: Path, tmp_path: Path
) -> None:
    options = (f"store.url=sqlite+aiosqlite:///{tmp_path}/events.db", "deadline_ms=60000")
    path, new = "/recommend?user_id=104&top_k=20", range(5001, 5031)
    with serving(text_bundle, tmp_path / "x", *options, "exploration.places=[5,2]") as server:
        connection = server.connect()
        before = ask(connection, "GET", path)[1]
        assert "propensities" not in before
        for item in new:
            title = {"title": f"Part {item}"}
            assert ask(connection, "PUT", f"/items/{item}", title)[0] == 200
        connections = server.to_each_worker().values()
        for connection in connections:
            until(lambda connection=connection: not missing(connection, list(new)), seconds=10)
        first, second = (ask(connection, "GET", path)[1] for connection in connections)
        assert first == second
        assert first["propensities"] == [1.0] * 20
        assert {first["top_items"][1], first["top_items"][4]} <= set(new)
        assert first["top_items"][0] == before["top_items"][0]
