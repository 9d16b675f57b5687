"""What changes the store. Each function runs in a transaction of its own, and commits nothing."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Integer,
    Table,
    bindparam,
    delete,
    exists,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from recsys.events import tables
from recsys.events.ids import IdTypes
from recsys.events.states import update_states
from recsys.events.types import Appended, Event, Item, Position, StoredItem, type_set

T = TypeVar("T")

MAX_PARAMETERS = 10_000
"""Of one statement; SQLite and PostgreSQL take some 32,000."""

_PRUNED_AT_ONCE = 5_000


async def append(
    connection: AsyncConnection, batches: Sequence[Sequence[Event]], ids: IdTypes
) -> list[Appended]:
    """Store the events of all batches whose ids are new; an answer per batch."""
    # With the lock, nobody else can add the ids that are looked up now.
    position = await lock(connection)
    seen = await _stored_event_ids(connection, [one.event_id for batch in batches for one in batch])
    fresh: list[Event] = []
    accepted: list[int] = []
    for batch in batches:
        before = len(fresh)
        for one in batch:
            if one.event_id not in seen:
                seen.add(one.event_id)
                fresh.append(one)
        accepted.append(len(fresh) - before)
    versions: dict[str, int] = {}
    if fresh:
        rows = [
            {
                **vars(one),
                "position": number,
                "user_id": ids.user_text(one.user_id),
                "item_id": ids.item_text(one.item_id),
            }
            for number, one in enumerate(fresh, position + 1)
        ]
        await connection.execute(insert(tables.events), rows)
        await update_states(connection, list(zip(fresh, rows, strict=True)))
        versions = {row["user_id"]: row["position"] for row in rows}
        await _set_versions(connection, versions)
        await _move(connection, rows[-1]["position"])
    named = {ids.user_text(one.user_id) for batch in batches for one in batch}
    versions |= await _versions(connection, named - versions.keys())
    return [
        Appended(
            number,
            len(batch) - number,
            {one.user_id: versions.get(ids.user_text(one.user_id), 0) for one in batch},
        )
        for batch, number in zip(batches, accepted, strict=True)
    ]


async def put_items(
    connection: AsyncConnection, items: Sequence[Item], ids: IdTypes
) -> list[StoredItem]:
    """Add or replace items, each at a position of its own; what they are now, in order."""
    position = await lock(connection)
    by_id = {ids.item_text(item.item_id): item for item in items}
    added: dict[str, int] = {}
    for some in _chunks(list(by_id)):
        columns = tables.items.c
        query = select(columns.item_id, columns.added_at).where(columns.item_id.in_(some))
        added |= {row.item_id: row.added_at for row in await connection.execute(query)}
    now = int(time.time())
    stored = [
        StoredItem(
            **{field.name: getattr(item, field.name) for field in fields(Item)},
            added_at=added.get(text, now),
            position=number,
        )
        for number, (text, item) in enumerate(by_id.items(), position + 1)
    ]
    if stored:
        rows = [{**asdict(item), "item_id": ids.item_text(item.item_id)} for item in stored]
        await _upsert(connection, tables.items, rows)
        await _move(connection, stored[-1].position)
    return stored


async def delete_user(connection: AsyncConnection, user_id: str, tombstone: str) -> None:
    """Delete all that has a user's id, and keep that it was deleted."""
    position = await lock(connection)
    users = tables.users.c
    for table in (tables.events, tables.states):
        await connection.execute(delete(table).where(table.c.user_id == user_id))
    deleted = await connection.execute(delete(tables.users).where(users.user_id == user_id))
    forgotten = select(users.user_id).where(users.user_id == tombstone)
    if deleted.rowcount == 0 and (await connection.execute(forgotten)).first():
        return
    row = {
        "user_id": tombstone,
        "version": position + 1,
        "forgotten_at": int(time.time()),
        "forgotten_position": position + 1,
    }
    await _upsert(connection, tables.users, [row])
    await _move(connection, position + 1)


async def prune(connection: AsyncConnection, before: int) -> tuple[int, bool]:
    """Delete some of what is older than this, oldest first; of how many events, and whether there
    was anything.
    """
    position = await lock(connection)
    events, states = tables.events.c, tables.states.c
    query = select(events.position, events.user_id, events.item_id).where(events.timestamp < before)
    old = (await connection.execute(query.order_by(events.timestamp).limit(_PRUNED_AT_ONCE))).all()
    positions = [row.position for row in old]
    for some in _chunks(positions):
        await connection.execute(delete(tables.events).where(events.position.in_(some)))
    expired = await connection.execute(
        delete(tables.states).where(_first_pairs(states.timestamp, before))
    )
    unrated = await connection.execute(
        update(tables.states)
        .where(_first_pairs(states.rated_at, before))
        .values(rating=None, rated_at=None)
    )
    await _forget_types(connection, {(row.user_id, row.item_id) for row in old})
    if not old and not expired.rowcount and not unrated.rowcount:
        return 0, False
    touched = sorted({row.user_id for row in old})
    await _set_versions(connection, dict.fromkeys(touched, position + 1))
    users = tables.users.c
    has_events = exists().where(events.user_id == users.user_id)
    for some in _chunks(touched):
        await connection.execute(
            delete(tables.users).where(
                users.user_id.in_(some), users.forgotten_at.is_(None), ~has_events
            )
        )
    await _move(connection, position + 1)
    await connection.execute(update(tables.store).values(pruned_position=position + 1))
    return len(old), True


async def _forget_types(connection: AsyncConnection, pairs: set[tuple[str, str]]) -> None:
    """Leave the states of these pairs, some of whose events are gone, the types of the others."""
    events, states = tables.events.c, tables.states.c
    # One that is left with a single type has it from an event that is left.
    has_several = states.types.bitwise_and(states.types - 1) != 0
    for some in _chunks(sorted({user for user, _ in pairs})):
        query = select(states.user_id, states.item_id).where(states.user_id.in_(some), has_several)
        found = {(row.user_id, row.item_id) for row in await connection.execute(query)}
        mixed: dict[tuple[str, str], int] = dict.fromkeys(sorted(found & pairs), 0)
        if not mixed:
            continue
        own = events.user_id.in_(sorted({user for user, _ in mixed}))
        left = select(events.user_id, events.item_id, events.type).where(own).distinct()
        for user, item, kind in await connection.execute(left):
            if (user, item) in mixed:
                mixed[user, item] |= type_set([kind])
        await connection.execute(
            update(tables.states)
            .where(states.user_id == bindparam("user"), states.item_id == bindparam("item"))
            .values(types=bindparam("left", type_=Integer)),
            [{"user": user, "item": item, "left": types} for (user, item), types in mixed.items()],
        )


def _first_pairs(time: ColumnElement[Any], before: int) -> ColumnElement[bool]:
    """Whether a state is one of the first whose ``time`` is older than this."""
    states = tables.states.c
    query = select(states.user_id, states.item_id).where(time < before)
    return tuple_(states.user_id, states.item_id).in_(query.order_by(time).limit(_PRUNED_AT_ONCE))


async def lock(connection: AsyncConnection) -> Position:
    """The latest position; until the end of the transaction there is no other writer.

    SQLite's writers are alone from BEGIN IMMEDIATE on, and it knows no FOR UPDATE.
    """
    query = select(tables.store.c.position).with_for_update()
    return int((await connection.execute(query)).scalar_one())


async def _move(connection: AsyncConnection, position: Position) -> None:
    await connection.execute(update(tables.store).values(position=position))


async def _stored_event_ids(connection: AsyncConnection, event_ids: Sequence[str]) -> set[str]:
    column = tables.events.c.event_id
    found: set[str] = set()
    for some in _chunks(event_ids):
        found.update((await connection.execute(select(column).where(column.in_(some)))).scalars())
    return found


async def _versions(connection: AsyncConnection, user_ids: set[str]) -> dict[str, int]:
    users = tables.users.c
    found: dict[str, int] = {}
    for some in _chunks(sorted(user_ids)):
        query = select(users.user_id, users.version).where(users.user_id.in_(some))
        found |= {row.user_id: row.version for row in await connection.execute(query)}
    return found


async def _set_versions(connection: AsyncConnection, versions: Mapping[str, int]) -> None:
    rows = [{"user_id": user_id, "version": version} for user_id, version in versions.items()]
    await _upsert(connection, tables.users, rows)


async def _upsert(
    connection: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert rows, or set these columns of those whose primary key is there."""
    keys = [column.name for column in table.primary_key]
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table)
    values = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    await connection.execute(
        statement.on_conflict_do_update(index_elements=keys, set_=values), rows
    )


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), MAX_PARAMETERS):
        yield values[start : start + MAX_PARAMETERS]
