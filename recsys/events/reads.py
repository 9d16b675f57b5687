"""What the store is asked. Each function runs in a connection whose statements see all commits."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from recsys.events import tables
from recsys.events.ids import IdTypes
from recsys.events.types import Changes, Event, Position, StoredItem, UserState
from recsys.schema import ExternalId


async def head(connection: AsyncConnection) -> Position:
    """Position of the latest commit; 0 in a new store."""
    return int((await connection.execute(select(tables.store.c.position))).scalar_one())


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
    connection: AsyncConnection, texts: Mapping[ExternalId, str], max_events: int, ids: IdTypes
) -> dict[ExternalId, UserState]:
    """In one statement, the state of each user; ``texts``: their ids as stored."""
    users, events = tables.users.c, tables.events.c
    wanted = list(texts.values())
    # The index alone answers which events are the latest; only those are looked up then.
    newest_first = (events.timestamp.desc(), events.position.desc())
    rank = func.row_number().over(partition_by=events.user_id, order_by=newest_first)
    ranked = select(events.user_id, events.position, rank.label("rank")).where(
        events.user_id.in_(wanted)
    )
    latest = ranked.subquery()
    joined = tables.users.outerjoin(
        latest, and_(latest.c.user_id == users.user_id, latest.c.rank <= max_events)
    ).outerjoin(tables.events, events.position == latest.c.position)
    query = (
        select(
            users.user_id,
            users.version,
            users.forgotten_at,
            events.item_id,
            events.timestamp,
            events.type,
            events.value,
        )
        .select_from(joined)
        .where(users.user_id.in_(wanted))
        .order_by(users.user_id, events.timestamp, events.position)
    )
    by_user: dict[str, list[Any]] = {}
    for row in await connection.execute(query):
        by_user.setdefault(row.user_id, []).append(row)
    return {user_id: _state(user_id, by_user.get(text, []), ids) for user_id, text in texts.items()}


def _state(user_id: ExternalId, rows: Sequence[Any], ids: IdTypes) -> UserState:
    """From the user's rows, of which a user without events has one, empty."""
    events = [row for row in rows if row.item_id is not None]
    return UserState(
        user_id,
        rows[0].version if rows else 0,
        [ids.item(row.item_id) for row in events],
        [row.timestamp for row in events],
        [row.type for row in events],
        [row.value for row in events],
        rows[0].forgotten_at if rows else None,
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


async def forgotten_users(connection: AsyncConnection, ids: IdTypes) -> dict[ExternalId, int]:
    """All users whose data was deleted, and when (unix seconds)."""
    users = tables.users.c
    query = select(users.user_id, users.forgotten_at).where(users.forgotten_at.isnot(None))
    rows = await connection.execute(query.order_by(users.forgotten_position))
    return {ids.user(row.user_id): row.forgotten_at for row in rows}
