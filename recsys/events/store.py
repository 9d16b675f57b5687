"""The event store: events, items and deletions, durable and visible to all processes."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import URL

from recsys.errors import InputError
from recsys.events import reads, writes
from recsys.events.catalogue import NO_CATALOGUE, CatalogueSketch
from recsys.events.checks import check_event, check_item
from recsys.events.database import SQLITE, Database, parse_url, prepare_folder, reason
from recsys.events.group_commit import GroupCommit
from recsys.events.ids import IdTypes
from recsys.events.migrate import type_states
from recsys.events.prepare import adopt, check_catalogue, prepare
from recsys.events.types import (
    Appended,
    Changes,
    Event,
    Item,
    PairState,
    Position,
    StoredItem,
    StoreUnavailableError,
    UserState,
)

if TYPE_CHECKING:
    from recsys.schema import ExternalId

_MAX_ITEMS_OF_USER = 1000
_MAX_CHANGES = 1000
_PAGE = 1000

SECONDS_OF_A_COMMAND = 10.0
"""That commands wait for the database: nobody's request does."""


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
        url: str | URL,
        *,
        holds_integer_users: bool | None = None,
        holds_integer_items: bool | None = None,
        catalogue: CatalogueSketch = NO_CATALOGUE,
        timeout_seconds: float = 2.0,
        make_folder: bool = True,
    ) -> "EventStore":
        """Connect, and make what is missing; any number of processes may do so at once.

        Args:
            url: ``sqlite+aiosqlite:///PATH`` or ``postgresql+asyncpg://USER:PASSWORD@HOST/NAME``.
            holds_integer_users, holds_integer_items: whether ids are integers, else strings. None
                takes them as the store has them, which must be there then. catalogue: of the data
                set that it is for; where none is given, it is not asked for.
            timeout_seconds: that a call waits for the database.
            make_folder: whether the folder of a SQLite file is made where it is missing.

        Raises:
            InputError: when the URL is none of these, the database cannot be reached, or its store
                is of another version, for other ids or of another data set.
        """
        parsed = parse_url(url)
        create = holds_integer_users is not None and holds_integer_items is not None
        if parsed.drivername == SQLITE:
            prepare_folder(parsed, create=create, make_folder=make_folder)
        try:
            database = Database(parsed, timeout_seconds)
        except OSError as error:
            raise _unreachable(parsed, reason(error)) from StoreUnavailableError(reason(error))
        try:
            ids = await database.write(
                lambda connection: prepare(
                    connection, holds_integer_users, holds_integer_items, catalogue
                )
            )
            await database.settle()
            more = await database.read(reads.has_untyped)
            while more:
                more = await database.write(type_states)
        except StoreUnavailableError as error:
            await database.close()
            raise _unreachable(parsed, error.reason) from error
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

    def can_hold_user(self, user_id: "ExternalId") -> bool:
        """Whether there can be anything stored of this user: an id that a database cannot hold, or
        of the other type, is nobody's.
        """
        return self._ids.can_hold_user(user_id)

    def tombstone(self, user_id: "ExternalId") -> str:
        """By which ``forgotten_users`` and ``changes`` tell a user whose data was deleted."""
        return self._ids.tombstone(user_id)

    async def check_catalogue(self, catalogue: CatalogueSketch) -> None:
        """Raise InputError when the store is of another data set."""
        check_catalogue(await self._database.read(reads.catalogue), catalogue)

    def check_id_types(self, integer_users: bool, integer_items: bool) -> None:
        """Raise InputError unless a bundle's ids, integers or strings, are of the store's types."""
        for kind, held, wanted in (
            ("user", self.holds_integer_users, integer_users),
            ("item", self.holds_integer_items, integer_items),
        ):
            if held != wanted:
                raise InputError(
                    f"a store with the bundle's type of {kind} ids", "another", "give its bundle"
                )

    async def adopt(self, catalogue: CatalogueSketch) -> None:
        """Know the store by this catalogue from now on."""
        await self._database.write(lambda connection: adopt(connection, catalogue))

    async def append(self, events: Sequence[Event]) -> Appended:
        """Store events, once each by ``event_id``; they are on disk when this returns.

        All are stored or none. Batches that wait at the same time share a transaction. What is to
        come happens now: no event has a time that is later than its arrival.
        """
        for event in events:
            check_event(event, self._ids)
        now = int(time.time())
        events = [replace(one, timestamp=now) if one.timestamp > now else one for one in events]
        return await self._group_commit.append(events)

    async def _commit(self, batches: Sequence[Sequence[Event]]) -> list[Appended]:
        return await self._database.write(
            lambda connection: writes.append(connection, batches, self._ids)
        )

    async def user_states(
        self, user_ids: "Sequence[ExternalId]", max_items: int = _MAX_ITEMS_OF_USER
    ) -> "dict[ExternalId, UserState]":
        """What is stored of each of these users, with details of the latest ``max_items``.

        One statement for all, and one more for those who have more. Raises ValueError when
        ``max_items`` is below 1.
        """
        if max_items < 1:
            raise ValueError(f"max_items must be at least 1; found {max_items}")
        texts = {user_id: self._ids.user_text(user_id) for user_id in user_ids}
        return await self._database.read(
            lambda connection: reads.user_states(connection, texts, max_items, self._ids)
        )

    def user_state_now(self, user_id: "ExternalId") -> UserState | None:
        """As ``user_states``, at once; None where that has to be asked.

        Raises:
            InputError: for an id that cannot be stored.
        """
        reader = self._database.immediate
        return None if reader is None else reader.user_state(user_id, _MAX_ITEMS_OF_USER, self._ids)

    async def head(self) -> Position:
        """Position of the latest change; 0 in a new store."""
        return await self._database.read(reads.head)

    async def check_writable(self) -> None:
        """Raise ``StoreUnavailableError`` when nothing could be stored now, as behind a lock.

        To be called now and then: what could not be done right after a deletion is done here.
        """
        await self._database.write(writes.lock)
        await self._database.scrub_again()

    def may_have_changed(self) -> bool:
        """Whether ``changes`` may have something new since this was asked last; at once.

        True where that cannot be told without asking the database. Raises StoreReplacedError when
        the store has to be closed and opened anew.
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
        have come in since. An event that is sent again after this counts as new. Nothing of the
        user is in the files of SQLite when this returns, or where a reader is in the way, soon
        after; see ``check_writable``.
        """
        text, tombstone = self._ids.user_text(user_id), self._ids.tombstone(user_id)
        await self._database.write(
            lambda connection: writes.delete_user(connection, text, tombstone)
        )
        await self._database.scrub()

    async def forgotten_users(self) -> dict[str, int]:
        """The tombstones of all users whose data was deleted, and when (unix seconds)."""
        return await self._database.read(reads.forgotten_users)

    async def prune(self, before: int) -> int:
        """Delete events of a time before this (unix seconds), a part per transaction; how many.

        Writers get their turn in between. As with ``delete_user``, nothing is left in the files.
        """
        total, more = 0, True
        while more:
            deleted, more = await self._database.write(
                lambda connection: writes.prune(connection, before)
            )
            total += deleted
        await self._database.scrub()
        return total

    async def pairs(self, batch_size: int = _PAGE) -> AsyncIterator[list[PairState]]:
        """All states of users and items; what changes meanwhile is told as it was or as it is."""
        after = ("", "")
        while True:
            page, after = await self._pairs_page(after, batch_size)
            if not page:
                return
            yield page

    async def _pairs_page(
        self, after: tuple[str, str], limit: int
    ) -> tuple[list[PairState], tuple[str, str]]:
        return await self._database.read(
            lambda connection: reads.pairs_after(connection, after, limit, self._ids)
        )

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


def _unreachable(url: URL, found: str) -> InputError:
    shown = url.set(query={}).render_as_string()
    return InputError(f"a database at {shown}", found, "check the URL, and that it runs")
