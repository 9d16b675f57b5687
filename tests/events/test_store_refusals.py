"""What the event store refuses: texts, events, other stores, what is no database."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.events.store import EventStore
from recsys.events.types import Event
from tests.events.stores import all_events, event, item, with_store


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
    with pytest.raises(InputError, match="expected an event store of version 3; found version 4"):
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
