"""What is read at once is what the store says; what cannot be is left to who waits."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from recsys.events.database import sqlite_url
from recsys.events.ids import IdTypes
from recsys.events.immediate import ImmediateReader
from recsys.events.store import EventStore
from recsys.events.types import Event

pytestmark = pytest.mark.anyio
LONG, DISMISSES, GONE, SILENT = 3, 4, 5, 99


def event(user: int, item: int, time: int, kind: str = "view") -> Event:
    return Event(f"{user}-{item}-{time}", user, item, kind, None, time)  # type: ignore[arg-type]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EventStore]:
    url = sqlite_url(tmp_path / "events.db")
    opened = await EventStore.open(url, holds_integer_users=True, holds_integer_items=True)
    await opened.append(
        [
            *(event(1, item, 100 - item) for item in range(1, 6)),
            event(1, 2, 200, "purchase"),
            *(event(LONG, item, item) for item in range(1, 1101)),
            event(DISMISSES, 7, 5),
            event(DISMISSES, 7, 6, "dismiss"),
            event(GONE, 1, 1),
        ]
    )
    await opened.delete_user(GONE)
    yield opened
    await opened.close()


@pytest.mark.parametrize("user", [1, DISMISSES, GONE, SILENT])
async def test_it_is_what_the_store_says(store: EventStore, user: int) -> None:
    found = store.user_state_now(user)
    assert found is not None
    assert found == (await store.user_states([user]))[user]


async def test_what_was_just_committed_is_in_it(store: EventStore) -> None:
    await store.append([event(SILENT, 3, 7)])
    found = store.user_state_now(SILENT)
    assert found is not None
    assert list(found.item_ids) == [3]


async def test_users_of_very_many_events_are_left_to_the_others(store: EventStore) -> None:
    assert store.user_state_now(LONG) is None
    assert len((await store.user_states([LONG]))[LONG].older) == 100


async def test_a_locked_file_is_not_waited_for(store: EventStore, tmp_path: Path) -> None:
    await store.close()
    path = tmp_path / "events.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    reader = ImmediateReader(path)
    ids = IdTypes(integer_users=True, integer_items=True)
    assert reader.user_state(1, 10, ids) is not None
    other.execute("BEGIN EXCLUSIVE")
    assert reader.user_state(1, 10, ids) is None
    other.execute("COMMIT")
    assert reader.user_state(1, 10, ids) is not None
    reader.close()
    other.close()


async def test_a_file_that_has_another_in_its_place_is_not_read(
    store: EventStore, tmp_path: Path
) -> None:
    assert store.user_state_now(1) is not None
    (tmp_path / "events.db").rename(tmp_path / "moved.db")
    await anyio.sleep(0.05)  # no read of its own looks at the files
    assert store.user_state_now(1) is None


async def test_a_closed_store_answers_nobody(store: EventStore) -> None:
    await store.close()
    assert store.user_state_now(1) is None
