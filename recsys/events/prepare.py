"""Makes the tables of a new store, and checks those of an old one."""

from sqlalchemy import insert, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from recsys.errors import InputError
from recsys.events import tables
from recsys.events.ids import IdTypes

_LOCK = 0x7265_6373_7973
"""Any number, the same in all processes."""


async def prepare(
    connection: AsyncConnection, integer_users: bool | None, integer_items: bool | None
) -> IdTypes:
    """Make what is missing, and say what ids the store has; in a transaction that writes.

    Args:
        integer_users, integer_items: what the caller's ids are; None takes them as they are, and
            makes nothing.

    Raises:
        InputError: when the store is of another version or for other ids, or is not there and must
            not be made.
    """
    if connection.dialect.name == "postgresql":
        # Two processes that make a table at the same time fail, even with IF NOT EXISTS.
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        encoding = (await connection.execute(text("SHOW server_encoding"))).scalar_one()
        if encoding != "UTF8":
            raise InputError("a database of encoding UTF8", encoding, "make another database")
    if not await connection.run_sync(lambda sync: inspect(sync).has_table(tables.store.name)):
        if integer_users is None or integer_items is None:
            raise InputError("the tables of an event store", "none", "check the URL")
        await connection.run_sync(tables.metadata.create_all)
        await connection.execute(
            insert(tables.store).values(
                id=1,
                schema_version=tables.SCHEMA_VERSION,
                integer_users=integer_users,
                integer_items=integer_items,
                position=0,
            )
        )
    found = (await connection.execute(select(tables.store))).one()
    if found.schema_version != tables.SCHEMA_VERSION:
        raise InputError(
            f"an event store of version {tables.SCHEMA_VERSION}",
            f"version {found.schema_version}",
            "use the code that made it, or another database",
        )
    for what, wanted, stored in (
        ("user", integer_users, found.integer_users),
        ("item", integer_items, found.integer_items),
    ):
        if wanted not in (None, stored):
            kinds = {True: "integer", False: "string"}
            raise InputError(
                f"an event store for {kinds[bool(wanted)]} {what} ids, as the model has",
                f"one for {kinds[stored]} ids",
                "use another database",
            )
    return IdTypes(found.integer_users, found.integer_items)
