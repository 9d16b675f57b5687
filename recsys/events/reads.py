"""What the store is asked. Each function runs in a connection whose statements see all commits."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, Select, and_, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from recsys.events import tables
from recsys.events.ids import IdTypes
from recsys.events.types import Changes, Event, Position, StoredItem, UserState

if TYPE_CHECKING:
    from recsys.schema import ExternalId


_POSITION = select(tables.store.c.position)


async def head(connection: AsyncConnection) -> Position:
    """Position of the latest commit; 0 in a new store."""
    return int((await connection.execute(_POSITION)).scalar_one())


async def changes(
    connection: AsyncConnection, after: Position, limit: int, ids: IdTypes
) -> Changes:
    """At most ``limit`` rows of each kind committed after a position.

    All that has a position up to the head was committed with or before it, so statements that come
    after the one that reads the head see it, whatever is being written meanwhile.
    """
    end = await head(connection)
    if end <= after:
        return Changes(after, [], [], [], more=False)
    events = await events_between(connection, after, end, limit, ids)
    items = await items_between(connection, after, end, limit, ids)
    users = tables.users.c
    query = (
        select(users.user_id, users.forgotten_position)
        .where(users.forgotten_position > after, users.forgotten_position <= end)
        .order_by(users.forgotten_position)
        .limit(limit)
    )
    forgotten = [
        (row.forgotten_position, ids.user(row.user_id)) for row in await connection.execute(query)
    ]
    full = [
        positions[-1]
        for positions in (
            [position for position, _ in events],
            [item.position for item in items],
            [position for position, _ in forgotten],
        )
        if len(positions) == limit
    ]
    # Where a list was cut, the others end at the same place.
    until = min([end, *full])
    return Changes(
        until,
        [one for position, one in events if position <= until],
        [item for item in items if item.position <= until],
        [user_id for position, user_id in forgotten if position <= until],
        more=until < end,
    )


async def user_states(
    connection: AsyncConnection, texts: "Mapping[ExternalId, str]", max_events: int, ids: IdTypes
) -> "dict[ExternalId, UserState]":
    """In one statement, the state of each user; ``texts``: their ids as stored."""
    parameters = {"user_ids": list(texts.values()), "offset": max_events - 1}
    rows = (await connection.execute(_STATES, parameters)).all()
    # More than were asked for where several have the time of the oldest.
    by_user = {text: list(own)[-max_events:] for text, own in groupby(rows, itemgetter(0))}
    return {user_id: _state(user_id, by_user.get(text), ids) for user_id, text in texts.items()}


def _states_query() -> Select[Any]:
    """Of ``user_ids``, the events that are no older than the one at ``offset`` from the latest.

    One row per event, or one with empty places where a user has none. So a user with very many
    events costs no more than others: the index leads to the oldest one that is wanted, and from
    there on. A rank by window function would pass over all of them.
    """
    users, events = tables.users.c, tables.events.c
    other = tables.events.alias()
    oldest = (
        select(other.c.timestamp)
        .where(other.c.user_id == users.user_id)
        .order_by(other.c.timestamp.desc())
        .limit(1)
        .offset(bindparam("offset", type_=Integer))
        .scalar_subquery()
    )
    told = (users.user_id, users.version, users.forgotten_at)
    # PostgreSQL would look for the oldest one again for every event, unless told to keep it.
    wanted = (
        select(*told, func.coalesce(oldest, -(2**63)).label("oldest"))
        .where(users.user_id.in_(bindparam("user_ids", expanding=True)))
        .cte("wanted")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    recent = and_(events.user_id == wanted.c.user_id, events.timestamp >= wanted.c.oldest)
    return (
        select(
            *(wanted.c[column.name] for column in told),
            *(events.item_id, events.timestamp, events.type, events.value),
        )
        .select_from(wanted.outerjoin(tables.events, recent))
        .order_by(wanted.c.user_id, events.timestamp, events.position)
    )


# Made once: that takes longer than the database takes to answer.
_STATES = _states_query()


def _state(user_id: "ExternalId", rows: Sequence[Any] | None, ids: IdTypes) -> UserState:
    if rows is None:
        return UserState(user_id, 0, [], [], [], [], None)
    first = rows[0]
    if first.item_id is None:
        return UserState(user_id, first.version, [], [], [], [], first.forgotten_at)
    _, _, _, item_ids, timestamps, types, values = zip(*rows, strict=True)
    return UserState(
        user_id,
        first.version,
        list(map(ids.item, item_ids)),
        list(timestamps),
        list(types),
        list(values),
        first.forgotten_at,
    )


async def events_between(
    connection: AsyncConnection, after: Position, until: Position, limit: int, ids: IdTypes
) -> list[tuple[Position, Event]]:
    """The first events of positions after one and up to another."""
    columns = tables.events.c
    query = (
        select(
            columns.position,
            columns.event_id,
            columns.user_id,
            columns.item_id,
            columns.type,
            columns.value,
            columns.timestamp,
        )
        .where(columns.position > after, columns.position <= until)
        .order_by(columns.position)
        .limit(limit)
    )
    rows = await connection.execute(query)
    return [
        (position, Event(event_id, ids.user(user_id), ids.item(item_id), kind, value, timestamp))
        for position, event_id, user_id, item_id, kind, value, timestamp in rows
    ]


async def items_between(
    connection: AsyncConnection, after: Position, until: Position, limit: int, ids: IdTypes
) -> list[StoredItem]:
    """The first items of positions after one and up to another."""
    position = tables.items.c.position
    query = select(tables.items).where(position > after, position <= until)
    rows = (await connection.execute(query.order_by(position).limit(limit))).mappings()
    return [StoredItem(**{**row, "item_id": ids.item(row["item_id"])}) for row in rows]


async def forgotten_users(connection: AsyncConnection, ids: IdTypes) -> "dict[ExternalId, int]":
    """All users whose data was deleted, and when (unix seconds)."""
    users = tables.users.c
    query = select(users.user_id, users.forgotten_at).where(users.forgotten_at.isnot(None))
    rows = await connection.execute(query.order_by(users.forgotten_position))
    return {ids.user(row.user_id): row.forgotten_at for row in rows}
