"""The event store, on SQLite and on PostgreSQL: what it acknowledges is there, once."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.events.store import EventStore
from recsys.events.types import Event, Item, StoreUnavailableError
from tests.postgres import Cluster

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
HOSTILE = st.text(max_size=200) | st.sampled_from(
    ["'; DROP TABLE recsys_events; --", "🦊" * 50, "\u202eabc", "a\r\n\tb", "NULL", "x" * 30_000]
)


def with_store(
    url: str, use: Callable[[EventStore], Awaitable[T]], *, integers: bool = True, **options: float
) -> T:
    async def run() -> T:
        store = await EventStore.open(
            url, holds_integer_users=integers, holds_integer_items=integers, **options
        )
        try:
            return await use(store)
        finally:
            await store.close()

    return asyncio.run(run())


def event(event_id: str, user_id: int | str = 1, item_id: int | str = 10, **more) -> Event:
    values = {"type": "like", "value": None, "timestamp": 1_000_000_000, **more}
    return Event(event_id, user_id, item_id, **values)


def item(item_id: int | str, title: str = "A", **more) -> Item:
    values = {"description": "", "genres": "", "year": None, "release_date": "", **more}
    return Item(item_id, title, text_vector=None, text_fingerprint=None, **values)


async def all_events(store: EventStore) -> list[Event]:
    return [one async for page in store.events(batch_size=7) for one in page]


def test_an_event_is_stored_once_and_as_it_was(store_url: str) -> None:
    first = event("a", value=4.5, type="rating")

    async def use(store: EventStore) -> None:
        appended = await store.append([first, event("b"), replace(first, item_id=11)])
        assert (appended.accepted, appended.duplicates) == (2, 1)
        again = await store.append([event("a", user_id=2), event("c")])
        assert (again.accepted, again.duplicates) == (1, 1)
        assert again.versions[2] == 0
        assert await all_events(store) == [first, event("b"), event("c")]

    with_store(store_url, use)


def test_a_users_state_is_in_time_order_and_grows_a_version(store_url: str) -> None:
    async def use(store: EventStore) -> None:
        await store.append([event("late", item_id=12, timestamp=300), event("x", user_id=2)])
        one = (await store.user_states([1]))[1]
        await store.append([event("early", item_id=11, timestamp=100, type="dismiss")])
        await store.append([event("same", item_id=13, timestamp=300, value=2.0)])
        states = await store.user_states([1, 2, 3])
        assert list(states[1].item_ids) == [11, 12, 13]
        assert list(states[1].types) == ["dismiss", "like", "like"]
        assert list(states[1].values) == [None, None, 2.0]
        assert states[1].version > one.version > 0
        assert (states[3].version, list(states[3].item_ids)) == (0, [])
        latest = (await store.user_states([1], max_events=2))[1]
        assert list(latest.item_ids) == [12, 13]

    with_store(store_url, use)


def test_a_deleted_user_is_gone_and_may_come_back(store_url: str) -> None:
    async def use(store: EventStore) -> None:
        await store.append([event("a"), event("b", user_id=2)])
        before, version = await store.head(), (await store.user_states([1]))[1].version
        await store.delete_user(1)
        await store.delete_user(77)  # of the training log alone
        state = (await store.user_states([1]))[1]
        assert state.forgotten_at == pytest.approx(time.time(), abs=60)
        assert (list(state.item_ids), state.version > version) == ([], True)
        assert (await store.changes(before)).forgotten == [1, 77]
        assert set(await store.forgotten_users()) == {1, 77}
        assert [one.event_id for one in await all_events(store)] == ["b"]
        await store.append([event("c")])
        assert list((await store.user_states([1]))[1].item_ids) == [10]

    with_store(store_url, use)


def test_items_are_replaced_and_keep_the_time_of_their_first_write(store_url: str) -> None:
    async def use(store: EventStore) -> None:
        (first,) = await store.put_items([item(5, year=1999, genres="A|B")])
        await store.put_items([item(6)])
        vector = replace(item(5, "B"), text_vector=b"\x00\x01", text_fingerprint="f")
        (second,) = await store.put_items([vector])
        assert second.added_at == first.added_at
        assert second.position > first.position
        found = {one.item_id: one for one in await store.items()}
        assert set(found) == {5, 6}
        assert (found[5].title, found[5].text_vector, found[5].year) == ("B", b"\x00\x01", None)
        assert [one.item_id for one in (await store.changes(first.position)).items] == [6, 5]

    with_store(store_url, use)


def test_changes_are_told_in_order_and_in_parts(store_url: str) -> None:
    async def use(store: EventStore) -> None:
        assert await store.head() == 0
        for n in range(5):
            await store.append([event(f"{n}{m}") for m in range(3)])
            await store.put_items([item(n)])
        position, events, items, more = 0, [], [], True
        while more:
            changes = await store.changes(position, limit=4)
            assert changes.position > position
            position, more = changes.position, changes.more
            events += changes.events
            items += changes.items
        assert [one.event_id for one in events] == [f"{n}{m}" for n in range(5) for m in range(3)]
        assert [one.item_id for one in items] == list(range(5))
        assert (await store.changes(position)).events == []

    with_store(store_url, use)


def test_retention_deletes_what_is_older(store_url: str) -> None:
    async def use(store: EventStore) -> None:
        await store.append([event(str(n), timestamp=n * 100) for n in range(10)])
        assert await store.prune(500) == 5
        assert [one.timestamp for one in await all_events(store)] == [500, 600, 700, 800, 900]

    with_store(store_url, use)


def test_many_small_batches_share_transactions_and_all_are_stored(store_url: str) -> None:
    async def use(store: EventStore) -> None:
        answers = await asyncio.gather(
            *(store.append([event(f"{n % 150}", user_id=n)]) for n in range(200))
        )
        assert sum(one.accepted for one in answers) == 150
        assert len(await all_events(store)) == 150

    with_store(store_url, use)


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


def test_hostile_texts_are_stored_as_texts(store_url: str) -> None:
    storable = HOSTILE.filter(lambda text: "\0" not in text)

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(title=storable, name=storable.filter(lambda text: 0 < len(text.encode()) <= 512))
    def check(title: str, name: str) -> None:
        async def use(store: EventStore) -> None:
            await store.put_items([item(name, title, description=title)])
            stored = {one.item_id: one for one in await store.items()}[name]
            assert (stored.title, stored.description) == (title, title)
            await store.append([event(name, name, name)])
            assert event(name, name, name) in await all_events(store)
            assert list((await store.user_states([name]))[name].item_ids) == [name]

        with_store(store_url, use, integers=False)

    check()


@pytest.mark.parametrize("text", ["a\0", "\0", "\ud800", "a\udfffb"])
def test_what_no_database_can_hold_is_refused(tmp_path: Path, text: str) -> None:
    async def use(store: EventStore) -> None:
        for write in (
            store.put_items([item("i", text)]),
            store.put_items([item(text)]),
            store.append([event(text, "u", "i")]),
            store.append([event("e", text, "i")]),
            store.append([event("e", "u", text)]),
            store.delete_user(text),
        ):
            with pytest.raises(InputError):
                await write
        assert await store.head() == 0

    with_store(f"sqlite+aiosqlite:///{tmp_path}/e.db", use, integers=False)


@pytest.mark.parametrize(
    "bad",
    [
        event("a", user_id="1"),
        event("a", item_id=True),
        event("a", user_id=2**63),
        event(""),
        event("\ud800"),
        event("a\0"),
        event("a", value=float("nan")),
        event("é" * 300),
    ],
)
def test_events_that_cannot_be_stored_are_refused_and_nothing_is(
    tmp_path: Path, bad: Event
) -> None:
    async def use(store: EventStore) -> None:
        with pytest.raises(InputError):
            await store.append([event("good"), bad])
        assert await all_events(store) == []

    with_store(f"sqlite+aiosqlite:///{tmp_path}/e.db", use)


def test_a_store_for_other_ids_is_refused(store_url: str) -> None:
    with_store(store_url, all_events)
    with pytest.raises(InputError, match="expected an event store for string user ids"):
        with_store(store_url, all_events, integers=False)


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    url = f"sqlite+aiosqlite:///{file}"
    with_store(url, all_events)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE recsys_store SET schema_version = schema_version + 1")
    with pytest.raises(InputError, match="expected an event store of version 1; found version 2"):
        with_store(url, all_events)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://root:secret@localhost/x",
        "sqlite+aiosqlite://",
        "postgresql+asyncpg://user:secret@127.0.0.1:1/x",
        "postgresql+asyncpg://user:secret/x",  # no host, so it stands where a port would
        "postgresql+asyncpg://user@127.0.0.1:1/x?password=secret",
    ],
)
def test_what_is_no_database_is_told_without_its_password(url: str) -> None:
    with pytest.raises(InputError) as error:
        with_store(url, all_events, timeout_seconds=1.0)
    assert "secret" not in str(error.value)
