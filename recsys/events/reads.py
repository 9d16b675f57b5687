"""What the store is asked. Each function runs in a connection whose statements see all commits."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    func,
    select,
    tuple_,
)

from recsys.events import tables
from recsys.events.catalogue import CatalogueSketch
from recsys.events.ids import IdTypes
from recsys.events.types import (
    Changes,
    Event,
    PairState,
    Position,
    StoredItem,
    StoreReplacedError,
    UserState,
)

if TYPE_CHECKING:
    from recsys.schema import ExternalId


_PAIR = ("user_id", "item_id", "timestamp", "dismissed", "rating", "types")
_POSITION = select(tables.store.c.position)


def catalogue(connection: Connection) -> CatalogueSketch:
    """By which the store is known."""
    found = connection.execute(select(tables.store.c.catalogue)).scalar_one()
    return CatalogueSketch.from_text(found)


def has_untyped(connection: Connection) -> bool:
    """Whether the states of a store of before still lack the types of some events."""
    query = select(tables.store.c.untyped_position)
    return connection.execute(query).scalar_one() is not None


def head(connection: Connection) -> Position:
    """Position of the latest commit; 0 in a new store."""
    return int(connection.execute(_POSITION).scalar_one())


def changes(connection: Connection, after: Position, limit: int, ids: IdTypes) -> Changes:
    """At most ``limit`` rows of each kind committed after a position.

    All that has a position up to the head was committed with or before it, so statements that come
    after the one that reads the head see it, whatever is being written meanwhile.

    Raises:
        StoreReplacedError: when the store has not come so far: a former state has been restored.
    """
    store = tables.store.c
    query = select(store.position, store.pruned_position)
    end, pruned = connection.execute(query).one()
    if end < after:
        raise StoreReplacedError(f"a state of before: change {end:,} is the latest, not {after:,}")
    if end == after:
        return Changes(after, [], [], [], pruned=False, more=False)
    events = events_between(connection, after, end, limit, ids)
    items = items_between(connection, after, end, limit, ids)
    users = tables.users.c
    query = (
        select(users.user_id, users.forgotten_position)
        .where(users.forgotten_position > after, users.forgotten_position <= end)
        .order_by(users.forgotten_position)
        .limit(limit)
    )
    forgotten = [(row.forgotten_position, row.user_id) for row in connection.execute(query)]
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
        [tombstone for position, tombstone in forgotten if position <= until],
        pruned=pruned > after,
        more=until < end,
    )


def user_states(
    connection: Connection, texts: "Mapping[ExternalId, str]", max_items: int, ids: IdTypes
) -> "dict[ExternalId, UserState]":
    """The state of each user, with details of so many items; ``texts``: their ids as stored."""
    tombstones = {user_id: ids.tombstone(user_id) for user_id in texts}
    asked = [*texts.values(), *tombstones.values()]
    parameters = {"user_ids": asked, "offset": max_items - 1}
    rows = connection.execute(STATES, parameters).all()
    by_user = {text: list(own) for text, own in groupby(rows, itemgetter(0))}
    long = [text for text, own in by_user.items() if len(own) == max_items]
    older = _older(connection, long, max_items, ids) if long else {}
    return {
        user_id: state_of(
            user_id,
            by_user.get(text, ()),
            by_user.get(tombstones[user_id], ()),
            older.get(text, NONE_OLDER),
            ids,
        )
        for user_id, text in texts.items()
    }


def _wanted() -> CTE:
    """Of each of ``user_ids``, time and position of the state at ``offset`` from the latest.

    So a user with very many events costs no more than others: the index leads to the oldest one
    that is wanted, and from there on. A rank by window function would pass over all of them.
    """
    users, other = tables.users.c, tables.states.alias()

    def oldest(name: str) -> ColumnElement[int]:
        found = (
            select(other.c[name])
            .where(other.c.user_id == users.user_id)
            .order_by(other.c.timestamp.desc(), other.c.position.desc())
            .limit(1)
            .offset(bindparam("offset", type_=Integer))
            .scalar_subquery()
        )
        return func.coalesce(found, -(2**63))

    return (
        select(
            *(users.user_id, users.version, users.forgotten_at),
            oldest("timestamp").label("oldest"),
            oldest("position").label("first"),
        )
        .where(users.user_id.in_(bindparam("user_ids", expanding=True)))
        .cte("wanted")
        # PostgreSQL would look for the oldest one again for every state, unless told to keep it.
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )


def _states_query() -> Select[Any]:
    """One row per state, or one with empty places where a user has none."""
    wanted, states = _wanted(), tables.states.c
    recent = and_(
        states.user_id == wanted.c.user_id,
        tuple_(states.timestamp, states.position) >= tuple_(wanted.c.oldest, wanted.c.first),
    )
    return (
        select(
            *(wanted.c[name] for name in ("user_id", "version", "forgotten_at")),
            *(states.item_id, states.timestamp, states.dismissed, states.rating, states.types),
        )
        .select_from(wanted.outerjoin(tables.states, recent))
        .order_by(wanted.c.user_id, states.timestamp, states.position)
    )


def _older_query(as_list: Callable[[ColumnElement[Any]], ColumnElement[str]]) -> Select[Any]:
    """The items of all other states, one list per user and kind: the database makes it."""
    wanted, states = _wanted(), tables.states.c
    old = and_(
        states.user_id == wanted.c.user_id,
        tuple_(states.timestamp, states.position) < tuple_(wanted.c.oldest, wanted.c.first),
    )
    return (
        select(
            *(wanted.c.user_id, states.dismissed),
            *(as_list(states.item_id), as_list(states.timestamp), as_list(states.types)),
        )
        .select_from(wanted.join(tables.states, old))
        .group_by(wanted.c.user_id, states.dismissed)
    )


# Made once: that takes longer than the database takes to answer.
STATES = _states_query()
_OLDER = {
    "sqlite": _older_query(func.json_group_array),
    "postgresql": _older_query(lambda column: cast(func.json_agg(column), Text)),
}


class Older(NamedTuple):
    had: "Sequence[ExternalId]" = ()
    had_types: Sequence[int] = ()
    dismissed: "Sequence[ExternalId]" = ()
    dismissed_at: Sequence[int] = ()


NONE_OLDER = Older()


def _older(
    connection: Connection, users: Sequence[str], max_items: int, ids: IdTypes
) -> dict[str, Older]:
    parameters = {"user_ids": users, "offset": max_items - 1}
    found: dict[str, Older] = {}
    rows = connection.execute(_OLDER[connection.dialect.name], parameters)
    for user, is_dismissed, texts, times, types in rows:
        items, before = list(map(ids.item, json.loads(texts))), found.get(user, NONE_OLDER)
        found[user] = (
            before._replace(dismissed=items, dismissed_at=json.loads(times))
            if is_dismissed
            else before._replace(had=items, had_types=json.loads(types))
        )
    return found


def state_of(
    user_id: "ExternalId",
    rows: Sequence[Any],
    tombstone: Sequence[Any],
    older: Older,
    ids: IdTypes,
) -> UserState:
    told = [*rows[:1], *tombstone[:1]]
    version = max((row.version for row in told), default=0)
    forgotten_at = tombstone[0].forgotten_at if tombstone else None
    if not rows or rows[0].item_id is None:
        return UserState(user_id, version, forgotten_at=forgotten_at)
    _, _, _, item_ids, timestamps, dismissed, ratings, types = zip(*rows, strict=True)
    return UserState(
        user_id,
        version,
        list(map(ids.item, item_ids)),
        list(timestamps),
        list(dismissed),
        list(ratings),
        list(types),
        *older,
        forgotten_at,
    )


def pairs_after(
    connection: Connection, after: tuple[str, str], limit: int, ids: IdTypes
) -> tuple[list[PairState], tuple[str, str]]:
    """The next states in order of users and items, as stored, and where they end."""
    states = tables.states.c
    query = (
        select(*(states[name] for name in _PAIR))
        .where(tuple_(states.user_id, states.item_id) > after)
        .order_by(states.user_id, states.item_id)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    found = [PairState(ids.user(user), ids.item(item), *state) for user, item, *state in rows]
    return found, (rows[-1][0], rows[-1][1]) if rows else after


def events_between(
    connection: Connection, after: Position, until: Position, limit: int, ids: IdTypes
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
    rows = connection.execute(query)
    return [
        (position, Event(event_id, ids.user(user_id), ids.item(item_id), kind, value, timestamp))
        for position, event_id, user_id, item_id, kind, value, timestamp in rows
    ]


def items_between(
    connection: Connection, after: Position, until: Position, limit: int, ids: IdTypes
) -> list[StoredItem]:
    """The first items of positions after one and up to another."""
    position = tables.items.c.position
    query = select(tables.items).where(position > after, position <= until)
    rows = connection.execute(query.order_by(position).limit(limit)).mappings()
    return [StoredItem(**{**row, "item_id": ids.item(row["item_id"])}) for row in rows]


def forgotten_users(connection: Connection) -> dict[str, int]:
    """The tombstones of all users whose data was deleted, and when (unix seconds)."""
    users = tables.users.c
    query = select(users.user_id, users.forgotten_at).where(users.forgotten_at.isnot(None))
    rows = connection.execute(query.order_by(users.forgotten_position))
    return {row.user_id: row.forgotten_at for row in rows}
