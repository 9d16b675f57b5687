"""What was deleted is gone: from the answers, and from each byte of SQLite's files."""

import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from recsys.events.store import EventStore
from tests.events.stores import all_events, event, with_store

YEAR = 365 * 86_400


def files_of(file: Path) -> bytes:
    found = sorted(file.parent.glob(f"{file.name}*"))
    return b"".join(one.read_bytes() for one in found)


def mark(user: int) -> str:
    return f"user-number-{user:05d}@example.org"


async def fill(store: EventStore, users: int = 300) -> None:
    """Of many users, in no order, so that their rows share pages, which split."""
    events = [
        event(f"event-of-{mark(user)}-{n}", mark(user), f"item-{n}-of-{mark(user)}")
        for user in range(users)
        for n in range(8)
    ]
    random.Random(0).shuffle(events)
    for start in range(0, len(events), 200):
        await store.append(events[start : start + 200])


def test_nothing_of_a_deleted_user_is_in_the_files(tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    gone = random.Random(1).sample(range(300), 60)

    async def use(store: EventStore) -> None:
        await fill(store)
        for user in gone:
            assert mark(user).encode() in files_of(file)
            await store.delete_user(mark(user))
            assert mark(user).encode() not in files_of(file)

    with_store(f"sqlite+aiosqlite:///{file}", use, integers=False)
    left = files_of(file)
    assert [user for user in range(300) if mark(user).encode() not in left] == sorted(gone)


def test_nothing_of_expired_events_is_in_the_files(tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    now = int(time.time())

    async def use(store: EventStore) -> None:
        await fill(store)
        kept = [event(f"late-{n}", mark(1000 + n), "i", timestamp=now) for n in range(100)]
        await store.append(kept)
        await store.append([event("late", mark(7), "i", timestamp=now)])
        assert await store.prune(now - YEAR) == 2400
        left = files_of(file)
        assert [user for user in range(300) if mark(user).encode() in left] == [7]
        assert all(mark(1000 + n).encode() in left for n in range(100))

    with_store(f"sqlite+aiosqlite:///{file}", use, integers=False)


def test_a_store_that_did_not_overwrite_is_rewritten_when_it_is_opened(tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    url = f"sqlite+aiosqlite:///{file}"
    with_store(url, fill, integers=False)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("PRAGMA application_id = 0")
        for table in ("recsys_events", "recsys_user_items", "recsys_users"):
            connection.execute(f"DELETE FROM {table} WHERE user_id = ?", [mark(5)])
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert mark(5).encode() in files_of(file)

    async def use(store: EventStore) -> None:
        await store.delete_user(mark(6))

    with_store(url, use, integers=False)
    left = files_of(file)
    assert mark(5).encode() not in left
    assert mark(6).encode() not in left
    assert mark(4).encode() in left


def test_a_reader_in_the_way_only_delays_it(tmp_path: Path) -> None:
    file = tmp_path / "events.db"

    async def use(store: EventStore) -> None:
        await fill(store, 20)
        with closing(sqlite3.connect(file, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM recsys_events").fetchall()
            await store.delete_user(mark(3))
            assert mark(3).encode() in files_of(file)
            reader.execute("ROLLBACK")
        await store.check_writable()
        assert mark(3).encode() not in files_of(file)

    with_store(f"sqlite+aiosqlite:///{file}", use, integers=False, timeout_seconds=0.3)


def test_expired_events_leave_no_state_and_no_rating(store_url: str) -> None:
    now = int(time.time())
    old = now - 2 * YEAR

    async def use(store: EventStore) -> None:
        await store.append(
            [
                event("a", 1, 10, type="rating", value=4.0, timestamp=old),
                event("b", 1, 10, type="click", timestamp=now),
                event("c", 1, 11, type="dismiss", timestamp=old),
                event("d", 2, 11, timestamp=old),
            ]
        )
        position = await store.head()
        assert await store.prune(now - YEAR) == 3
        states = await store.user_states([1, 2])
        assert (list(states[1].item_ids), list(states[1].ratings)) == ([10], [None])
        assert states[2].version == 0
        changes = await store.changes(position)
        assert changes.pruned
        assert not (await store.changes(changes.position)).pruned

    with_store(store_url, use)


@pytest.mark.parametrize("ahead", [3600, 70 * YEAR, 2**62])
def test_no_event_has_a_time_later_than_its_arrival(store_url: str, ahead: int) -> None:
    before = int(time.time())

    async def use(store: EventStore) -> None:
        await store.append([event("a", timestamp=before + ahead), event("b", timestamp=before - 9)])
        found = {one.event_id: one.timestamp for one in await all_events(store)}
        assert before <= found["a"] <= time.time()
        assert found["b"] == before - 9
        assert await store.prune(int(time.time()) + 1) == 2

    with_store(store_url, use)


def test_a_forgotten_user_is_known_by_a_digest_of_this_store_alone(tmp_path: Path) -> None:
    async def use(store: EventStore) -> str:
        await store.delete_user("anna")
        (tombstone,) = await store.forgotten_users()
        assert tombstone == store.tombstone("anna") != store.tombstone("ann")
        return tombstone

    stores = [f"sqlite+aiosqlite:///{tmp_path}/{name}.db" for name in "ab"]
    one, other = (with_store(url, use, integers=False) for url in stores)
    assert one != other
