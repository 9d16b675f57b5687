"""Brings stores of former versions up to date."""

import time
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    LargeBinary,
    Subquery,
    Table,
    Text,
    bindparam,
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
from sqlalchemy.types import TypeEngine

from recsys.events import tables
from recsys.events.ids import IdTypes
from recsys.events.states import DISMISS, RATING
from recsys.events.types import type_set

_Column = tuple[str, TypeEngine[Any], str]

_SINCE_VERSION_2: tuple[_Column, ...] = (
    ("pruned_position", BigInteger(), "DEFAULT 0 NOT NULL"),
    ("secret", LargeBinary(), ""),
    ("catalogue", Text(), "DEFAULT '' NOT NULL"),
)
_SINCE_VERSION_3: tuple[_Column, ...] = (("untyped_position", BigInteger(), ""),)
_TYPES: _Column = ("types", Integer(), "DEFAULT 0 NOT NULL")
_TYPED_AT_ONCE = 2_000
"""Events of one transaction, which must not take longer than others."""


async def from_version_1(connection: AsyncConnection, secret: bytes) -> None:
    """Times are bounded by now, states are made of the events, and forgotten ids go.

    The states have no types yet, see ``type_states``.
    """
    await _add_columns(connection, tables.store, *_SINCE_VERSION_2, *_SINCE_VERSION_3)
    await connection.run_sync(tables.metadata.create_all)
    now = int(time.time())
    events = tables.events.c
    await connection.execute(
        update(tables.events).where(events.timestamp > now).values(timestamp=now)
    )
    await _make_states(connection)
    found = (await connection.execute(select(tables.store))).one()
    await _bury(connection, IdTypes(found.integer_users, found.integer_items, secret))
    await connection.execute(
        update(tables.store).values(schema_version=3, secret=secret, untyped_position=0)
    )


async def from_version_2(connection: AsyncConnection) -> None:
    """States get a place for the types of their events, see ``type_states``."""
    await _add_columns(connection, tables.store, *_SINCE_VERSION_3)
    await _add_columns(connection, tables.states, _TYPES)
    await connection.execute(update(tables.store).values(schema_version=3, untyped_position=0))


async def type_states(connection: AsyncConnection) -> bool:
    """Give states the types of the next events of a store of before, where it is one.

    In a transaction of its own that writes. Whoever opens the store does this until there are no
    more; what one has not come to, another one does.

    Returns:
        Whether there are more.
    """
    query = select(tables.store.c.untyped_position).with_for_update()
    after = (await connection.execute(query)).scalar_one()
    if after is None:
        return False
    events, states = tables.events.c, tables.states.c
    rows = (
        await connection.execute(
            select(events.position, events.user_id, events.item_id, events.type)
            .where(events.position > after)
            .order_by(events.position)
            .limit(_TYPED_AT_ONCE)
        )
    ).all()
    found: dict[tuple[str, str], int] = {}
    for row in rows:
        pair = row.user_id, row.item_id
        found[pair] = found.get(pair, 0) | type_set([row.type])
    if found:
        await connection.execute(
            update(tables.states)
            .where(states.user_id == bindparam("user"), states.item_id == bindparam("item"))
            .values(types=states.types.bitwise_or(bindparam("more", type_=Integer))),
            [
                {"user": user, "item": item, "more": types}
                for (user, item), types in sorted(found.items())
            ],
        )
    more = len(rows) == _TYPED_AT_ONCE
    reached = rows[-1].position if more else None
    await connection.execute(update(tables.store).values(untyped_position=reached))
    return more


async def _add_columns(connection: AsyncConnection, table: Table, *columns: _Column) -> None:
    for name, type_, rule in columns:
        compiled = type_.compile(connection.dialect)
        sql = f"ALTER TABLE {table.name} ADD COLUMN {name} {compiled} {rule}"
        await connection.execute(text(sql))


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
