"""The event store: events, items and deletions, durable and visible to all processes."""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from recsys.errors import InputError
from recsys.events import reads, writes
from recsys.events.checks import check_event, check_item
from recsys.events.database import SQLITE, Database, parse_url, prepare_folder
from recsys.events.group_commit import GroupCommit
from recsys.events.ids import IdTypes
from recsys.events.prepare import prepare
from recsys.events.types import (
    Appended,
    Changes,
    Event,
    Item,
    Position,
    StoredItem,
    StoreUnavailableError,
    UserState,
)

if TYPE_CHECKING:
    from recsys.schema import ExternalId

_MAX_EVENTS_OF_USER = 1000
_MAX_CHANGES = 1000
_PAGE = 1000


class EventStore:
    """Events, items and deletions in one database; made by ``open``, in each process its own.

    All methods raise ``StoreUnavailableError`` within about the timeout when the database fails,
    and work again when it is back; and ``InputError`` for ids or text that cannot be stored.
    """

    def __init__(self, database: Database, ids: IdTypes, timeout_seconds: float) -> None:
        self._database = database
        self._ids = ids
        self._group_commit = GroupCommit(self._commit, timeout_seconds)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        holds_integer_users: bool | None = None,
        holds_integer_items: bool | None = None,
        timeout_seconds: float = 2.0,
    ) -> "EventStore":
        """Connect, and make what is missing; any number of processes may do so at once.

        Args:
            url: ``sqlite+aiosqlite:///PATH`` or ``postgresql+asyncpg://USER:PASSWORD@HOST/NAME``.
            holds_integer_users, holds_integer_items: whether ids are integers, else strings. None
                takes them as the store has them, which must be there then.
            timeout_seconds: that a call waits for the database.

        Raises:
            InputError: when the URL is none of these, the database cannot be reached, or its store
                is of another version or for other ids.
        """
        parsed = parse_url(url)
        create = holds_integer_users is not None and holds_integer_items is not None
        if parsed.drivername == SQLITE:
            prepare_folder(parsed, create=create)
        database = Database(parsed, timeout_seconds)
        try:
            ids = await database.write(
                lambda connection: prepare(connection, holds_integer_users, holds_integer_items)
            )
        except StoreUnavailableError as error:
            await database.close()
            shown = parsed.set(query={}).render_as_string()
            raise InputError(
                f"a database at {shown}", error.reason, "check the URL, and that it runs"
            ) from error
        except InputError:
            await database.close()
            raise
        return cls(database, ids, timeout_seconds)

    @property
    def holds_integer_users(self) -> bool:
        """Whether users' ids are integers (else strings)."""
        return self._ids.integer_users

    @property
    def holds_integer_items(self) -> bool:
        """Whether items' ids are integers (else strings)."""
        return self._ids.integer_items

    async def append(self, events: Sequence[Event]) -> Appended:
        """Store events, once each by ``event_id``; they are on disk when this returns.

        All are stored or none. Batches that wait at the same time share a transaction.
        """
        for event in events:
            check_event(event, self._ids)
        return await self._group_commit.append(events)

    async def _commit(self, batches: Sequence[Sequence[Event]]) -> list[Appended]:
        return await self._database.write(
            lambda connection: writes.append(connection, batches, self._ids)
        )

    async def user_states(
        self, user_ids: "Sequence[ExternalId]", max_events: int = _MAX_EVENTS_OF_USER
    ) -> "dict[ExternalId, UserState]":
        """What is stored of each of these users, with their latest ``max_events`` at most.

        One statement for all. Raises ValueError when ``max_events`` is below 1.
        """
        if max_events < 1:
            raise ValueError(f"max_events must be at least 1; found {max_events}")
        texts = {user_id: self._ids.user_text(user_id) for user_id in user_ids}
        return await self._database.read(
            lambda connection: reads.user_states(connection, texts, max_events, self._ids)
        )

    async def head(self) -> Position:
        """Position of the latest change; 0 in a new store."""
        return await self._database.read(reads.head)

    async def check_writable(self) -> None:
        """Raise ``StoreUnavailableError`` when nothing could be stored now, as behind a lock."""
        await self._database.write(writes.lock)

    def may_have_changed(self) -> bool:
        """Whether ``changes`` may have something new since this was asked last; at once.

        True where that cannot be told without asking the database.
        """
        return self._database.may_have_changed()

    async def changes(self, after: Position, limit: int = _MAX_CHANGES) -> Changes:
        """What was committed after a position, at most ``limit`` rows of each kind.

        One statement that reads one row, where nothing was. Events that have been deleted since are
        left out.
        """
        return await self._database.read(
            lambda connection: reads.changes(connection, after, limit, self._ids)
        )

    async def put_items(self, items: Sequence[Item]) -> list[StoredItem]:
        """Add or replace items; what is stored now, once per id (the last one counts)."""
        for item in items:
            check_item(item, self._ids)
        return await self._database.write(
            lambda connection: writes.put_items(connection, items, self._ids)
        )

    async def items(self) -> list[StoredItem]:
        """All items, in order of their positions."""
        found: dict[ExternalId, StoredItem] = {}
        position, end = 0, await self.head()
        while page := await self._items_page(position, end):
            found |= {item.item_id: item for item in page}
            position = page[-1].position
        return list(found.values())

    async def _items_page(self, after: Position, until: Position) -> list[StoredItem]:
        return await self._database.read(
            lambda connection: reads.items_between(connection, after, until, _PAGE, self._ids)
        )

    async def delete_user(self, user_id: "ExternalId") -> None:
        """Delete a user's events, and tell all who read ``changes`` to forget the user.

        The user may be one of the training log alone. A second time it does nothing, unless events
        have come in since. An event that is sent again after this counts as new.
        """
        text = self._ids.user_text(user_id)
        await self._database.write(lambda connection: writes.delete_user(connection, text))

    async def forgotten_users(self) -> "dict[ExternalId, int]":
        """All users whose data was deleted, and when (unix seconds)."""
        return await self._database.read(
            lambda connection: reads.forgotten_users(connection, self._ids)
        )

    async def prune(self, before: int) -> int:
        """Delete events of a time before this (unix seconds), a part per transaction; how many.

        Writers get their turn in between. ``changes`` does not tell of it.
        """
        total = 0
        while deleted := await self._database.write(
            lambda connection: writes.prune(connection, before)
        ):
            total += deleted
        return total

    async def events(
        self, batch_size: int = _PAGE, until: Position | None = None
    ) -> AsyncIterator[list[Event]]:
        """All events in the order of their commits, up to a position; None: the latest one now."""
        position, end = 0, await self.head() if until is None else until
        while page := await self._events_page(position, end, batch_size):
            position = page[-1][0]
            yield [event for _, event in page]

    async def _events_page(
        self, after: Position, until: Position, limit: int
    ) -> list[tuple[Position, Event]]:
        return await self._database.read(
            lambda connection: reads.events_between(connection, after, until, limit, self._ids)
        )

    async def close(self) -> None:
        """Commit what waits, and close all connections."""
        await self._group_commit.close()
        await self._database.close()
