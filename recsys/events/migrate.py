"""Brings stores of former versions up to date."""

import time

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    LargeBinary,
    Subquery,
    Text,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from recsys.events import tables
from recsys.events.ids import IdTypes
from recsys.events.states import DISMISS, RATING

_NEW_COLUMNS = (
    ("pruned_position", BigInteger(), "DEFAULT 0 NOT NULL"),
    ("secret", LargeBinary(), ""),
    ("catalogue", Text(), "DEFAULT '' NOT NULL"),
)


async def from_version_1(connection: AsyncConnection, secret: bytes) -> None:
    """Times are bounded by now, states are made of the events, and forgotten ids go."""
    for name, type_, rule in _NEW_COLUMNS:
        compiled = type_.compile(connection.dialect)
        sql = f"ALTER TABLE {tables.store.name} ADD COLUMN {name} {compiled} {rule}"
        await connection.execute(text(sql))
    await connection.run_sync(tables.metadata.create_all)
    now = int(time.time())
    events = tables.events.c
    await connection.execute(
        update(tables.events).where(events.timestamp > now).values(timestamp=now)
    )
    await _make_states(connection)
    found = (await connection.execute(select(tables.store))).one()
    await _bury(connection, IdTypes(found.integer_users, found.integer_items, secret))
    await connection.execute(update(tables.store).values(schema_version=2, secret=secret))


async def _make_states(connection: AsyncConnection) -> None:
    events = tables.events.c

    def latest(*conditions: ColumnElement[bool]) -> Subquery:
        rank = func.row_number().over(
            partition_by=(events.user_id, events.item_id),
            order_by=(events.timestamp.desc(), events.position.desc()),
        )
        return select(tables.events, rank.label("rank")).where(*conditions).subquery()

    last = latest()
    rated = latest(events.type == RATING, events.value.isnot(None))
    ratings = select(rated).where(rated.c.rank == 1).subquery()
    pairs = last.outerjoin(
        ratings,
        (ratings.c.user_id == last.c.user_id) & (ratings.c.item_id == last.c.item_id),
    )
    rows = (
        select(
            *(last.c[name] for name in ("user_id", "item_id", "timestamp", "position")),
            last.c.type == DISMISS,
            ratings.c.value,
            ratings.c.timestamp,
        )
        .select_from(pairs)
        .where(last.c.rank == literal(1))
    )
    columns = [*("user_id", "item_id", "timestamp", "position"), "dismissed", "rating", "rated_at"]
    await connection.execute(insert(tables.states).from_select(columns, rows))


async def _bury(connection: AsyncConnection, ids: IdTypes) -> None:
    users = tables.users.c
    query = select(tables.users).where(users.forgotten_at.isnot(None))
    for row in (await connection.execute(query)).all():
        tombstone = ids.tombstone(ids.user(row.user_id))
        await connection.execute(
            update(tables.users)
            .where(users.user_id == row.user_id)
            .values(forgotten_at=None, forgotten_position=None)
        )
        await connection.execute(
            insert(tables.users).values(
                user_id=tombstone,
                version=row.forgotten_position,
                forgotten_at=row.forgotten_at,
                forgotten_position=row.forgotten_position,
            )
        )
    has_events = exists().where(tables.events.c.user_id == users.user_id)
    await connection.execute(delete(tables.users).where(users.forgotten_at.is_(None), ~has_events))
