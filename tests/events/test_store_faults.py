"""The event store among other processes, and when its database is locked, ends or is killed."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recsys.events.store import EventStore
from recsys.events.types import StoreUnavailableError
from tests.events.stores import all_events, event, item, with_store
from tests.postgres import Cluster

ROOT = Path(__file__).parents[2]

WRITER = """
import asyncio, sys
from recsys.events.store import EventStore
from recsys.events.types import Event

async def main(url, name, number, shared):
    store = await EventStore.open(url, holds_integer_users=True, holds_integer_items=True)
    for n in range(number):
        names = (f"{name}-{n}", f"x{n}")
        own = [Event(event_id, n % 9, n, "view", None, n) for event_id in names]
        await store.append(own if shared else own[:1])
        print(f"{name}-{n}", flush=True)
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "shared"))
"""


def writer(url: str, name: str, number: int, shared: str = "shared") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, url, name, str(number), shared]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_who_tails_concurrent_writers_misses_nothing_and_sees_nothing_twice(store_url: str) -> None:
    number = 60

    async def use(store: EventStore) -> None:
        processes = [writer(store_url, name, number) for name in "abc"]
        position, seen = 0, []
        while any(one.poll() is None for one in processes):
            changes = await store.changes(position)
            position = changes.position
            seen += [one.event_id for one in changes.events]
        changes = await store.changes(position)
        seen += [one.event_id for one in changes.events]
        for one in processes:
            assert one.stdout is not None
            assert len(one.stdout.read().split()) == number
            one.stdout.close()
        expected = {f"{name}-{n}" for name in "abc" for n in range(number)}
        assert sorted(seen) == sorted(expected | {f"x{n}" for n in range(number)})

    with_store(store_url, use, timeout_seconds=20)


@pytest.mark.slow
def test_what_was_acknowledged_before_a_kill_is_there(store_url: str) -> None:
    with_store(store_url, all_events)  # there are tables
    process = writer(store_url, "k", 100_000, "alone")
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(200)]
    process.kill()
    acknowledged += process.stdout.read().split("\n")[:-1]
    process.stdout.close()
    process.wait()
    stored = [one.event_id for one in with_store(store_url, all_events)]
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored)) <= len(acknowledged) + 1


def test_a_locked_file_is_told_in_time_and_works_again_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "events.db"

    async def use(store: EventStore) -> None:
        lock = sqlite3.connect(file, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        for write in (store.append([event("a")]), store.put_items([item(1)]), store.delete_user(1)):
            with pytest.raises(StoreUnavailableError):
                await write
        with pytest.raises(StoreUnavailableError):
            await store.check_writable()
        assert time.monotonic() - started < 4 * 0.9
        assert await store.head() == 0  # readers do not wait for writers
        lock.execute("ROLLBACK")
        lock.close()
        await store.check_writable()
        await store.append([event("a")])
        assert len(await all_events(store)) == 1

    with_store(f"sqlite+aiosqlite:///{file}", use, timeout_seconds=0.3)


def test_a_database_that_ends_is_told_in_time_and_works_again_afterwards(
    postgres: Cluster, postgres_url: str
) -> None:
    async def use(store: EventStore) -> None:
        await store.append([event("a")])
        await asyncio.to_thread(postgres.stop)
        try:
            for work in (store.append([event("b")]), store.user_states([1]), store.changes(0)):
                started = time.monotonic()
                with pytest.raises(StoreUnavailableError):
                    await work
                assert time.monotonic() - started < 3
        finally:
            await asyncio.to_thread(postgres.start)
        await store.append([event("b")])
        assert [one.event_id for one in await all_events(store)] == ["a", "b"]

    with_store(postgres_url, use, timeout_seconds=1.0)
