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

SCHEMA_VERSION = 1
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
)
"""One row: what the store holds, and the latest change's position.

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

users = Table(
    "recsys_users",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("forgotten_at", BigInteger),
    Column("forgotten_position", BigInteger, index=True),
)
"""version: position of the latest change to the user's data; the row outlives the events."""

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
