"""The tables, alike in SQLite and PostgreSQL."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

SCHEMA_VERSION = 3
"""Grows when the tables change, so that code refuses a database that it does not understand."""

# Only a column of this very type is SQLite's own row number, and so needs no index of its own.
_POSITION = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData()

store = Table(
    "recsys_store",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("schema_version", Integer, nullable=False),
    Column("integer_users", Boolean, nullable=False),
    Column("integer_items", Boolean, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("pruned_position", BigInteger, nullable=False, server_default="0"),
    Column("secret", LargeBinary, nullable=False),
    Column("catalogue", Text, nullable=False),
    Column("untyped_position", BigInteger),
)
"""One row: what the store holds, and the latest change's position, and the latest deletion's of
expired events. secret: of ``IdTypes``. catalogue: of ``CatalogueSketch``, may be empty.
untyped_position: of a store of before states had types, up to which event they have them, while
they are being made; else empty.

Every writer locks this row first, so that positions have no gaps and become visible in order: who
has seen position p will never find a new row at or below p. A sequence of the database gives no
such promise, since transactions may commit in another order than they took their numbers.
"""

events = Table(
    "recsys_events",
    metadata,
    Column("position", _POSITION, primary_key=True, autoincrement=False),
    Column("event_id", Text, nullable=False, unique=True),
    Column("user_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("value", Double),
    Column("timestamp", BigInteger, nullable=False),
    Index("recsys_events_of_user", "user_id", "timestamp", "position"),
    Index("recsys_events_by_time", "timestamp"),
)

states = Table(
    "recsys_user_items",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("timestamp", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("dismissed", Boolean, nullable=False),
    Column("rating", Double),
    Column("rated_at", BigInteger),
    Column("types", Integer, nullable=False, server_default="0"),
    Index("recsys_user_items_of_user", "user_id", "timestamp", "position"),
    Index("recsys_user_items_by_time", "timestamp"),
    Index("recsys_user_items_by_rating", "rated_at"),
    sqlite_with_rowid=False,
)
"""What a user thinks of an item, kept up to date from all events: the latest one by time, and by
arrival among those of one time, says whether the user has dismissed the item (else: has had it).
rating: the latest that was given, at ``rated_at``. types: the set of the types of all events that
are stored, see ``type_set``; 0 where code of before has written the state.
"""

users = Table(
    "recsys_users",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("forgotten_at", BigInteger),
    Column("forgotten_position", BigInteger, index=True),
)
"""version: position of the latest change to the user's data; the row goes with the last event.

Of a user whose data was deleted there is nothing but a row with ``IdTypes.tombstone`` for an id,
and a second one with the id itself only if events have come in since.
"""

items = Table(
    "recsys_items",
    metadata,
    Column("item_id", Text, primary_key=True),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("genres", Text, nullable=False),
    Column("year", BigInteger),
    Column("release_date", Text, nullable=False),
    Column("text_vector", LargeBinary),
    Column("text_fingerprint", Text),
    Column("added_at", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False, index=True),
)
