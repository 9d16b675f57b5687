"""One state per user and item, of all events, whenever and in whatever order they come in."""

from typing import Any

from sqlalchemy import and_, case, or_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from recsys.events import tables
from recsys.events.types import Event, rating_of, type_set

DISMISS = "dismiss"
RATING = "rating"
_LATEST, _RATING = ("timestamp", "position", "dismissed"), ("rating", "rated_at")


async def update_states(
    connection: AsyncConnection, rows: "list[tuple[Event, dict[str, Any]]]"
) -> None:
    """Take in events, with their rows in the table of events, in order of their positions."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(tables.states)
    old, new = tables.states.c, statement.excluded
    # Positions grow: of two events of one time, the one that comes in now is the later one.
    is_later = new.timestamp >= old.timestamp
    is_rated = and_(
        new.rating.isnot(None), or_(old.rated_at.is_(None), new.rated_at >= old.rated_at)
    )
    values = {
        **{name: case((is_later, new[name]), else_=old[name]) for name in _LATEST},
        **{name: case((is_rated, new[name]), else_=old[name]) for name in _RATING},
        "types": old.types.bitwise_or(new.types),
    }
    merged = statement.on_conflict_do_update(index_elements=["user_id", "item_id"], set_=values)
    await connection.execute(merged, _of_each_pair(rows))


def _of_each_pair(rows: "list[tuple[Event, dict[str, Any]]]") -> list[dict[str, Any]]:
    """One state per pair: PostgreSQL keeps each version of a row until the transaction ends."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for event, row in rows:
        new = _state(event, row)
        old = found.setdefault((new["user_id"], new["item_id"]), new)
        if new["timestamp"] >= old["timestamp"]:
            old |= {name: new[name] for name in _LATEST}
        is_rated = old["rated_at"] is not None
        if new["rating"] is not None and not (is_rated and new["rated_at"] < old["rated_at"]):
            old |= {name: new[name] for name in _RATING}
        old["types"] |= new["types"]
    return list(found.values())


def _state(event: Event, row: "dict[str, Any]") -> dict[str, Any]:
    rating = rating_of(event.type, event.value)
    return {
        **{name: row[name] for name in ("user_id", "item_id", "timestamp", "position")},
        "dismissed": event.type == DISMISS,
        "rating": rating,
        "rated_at": None if rating is None else event.timestamp,
        "types": type_set([event.type]),
    }
