"""Makes the tables of a new store, and checks those of an old one."""

import secrets

from sqlalchemy import insert, inspect, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from recsys.errors import InputError
from recsys.events import tables
from recsys.events.catalogue import CatalogueSketch
from recsys.events.ids import IdTypes
from recsys.events.migrate import from_version_1, from_version_2

_LOCK = 0x7265_6373_7973
"""Any number, the same in all processes."""


SECRET_BYTES = 32


async def prepare(
    connection: AsyncConnection,
    integer_users: bool | None,
    integer_items: bool | None,
    catalogue: CatalogueSketch,
) -> IdTypes:
    """Make what is missing, and say what ids the store has; in a transaction that writes.

    Args:
        integer_users, integer_items: what the caller's ids are; None takes them as they are, and
            makes nothing. catalogue: the caller's, which the store is known by from now on.

    Raises:
        InputError: when the store is of another version, for other ids or of another data set, or
            is not there and must not be made.
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
                pruned_position=0,
                secret=secrets.token_bytes(SECRET_BYTES),
                catalogue="",
            )
        )
    version = (await connection.execute(select(tables.store.c.schema_version))).scalar_one()
    if version == 1:
        await from_version_1(connection, secrets.token_bytes(SECRET_BYTES))
    elif version == 2:
        await from_version_2(connection)
    elif version != tables.SCHEMA_VERSION:
        raise InputError(
            f"an event store of version {tables.SCHEMA_VERSION}",
            f"version {version}",
            "use the code that made it, or another database",
        )
    found = (await connection.execute(select(tables.store))).one()
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
    check_catalogue(CatalogueSketch.from_text(found.catalogue), catalogue)
    if catalogue.hashes and catalogue.as_text() != found.catalogue:
        await adopt(connection, catalogue)
    return IdTypes(found.integer_users, found.integer_items, found.secret)


async def adopt(connection: AsyncConnection, catalogue: CatalogueSketch) -> None:
    """Know the store by this catalogue from now on; in a transaction that writes."""
    await connection.execute(update(tables.store).values(catalogue=catalogue.as_text()))


def check_catalogue(stored: CatalogueSketch, given: CatalogueSketch) -> None:
    """Raise InputError when a store is of another data set than a bundle."""
    if not stored.fits(given):
        raise InputError(
            "an event store of the bundle's data set",
            "one of other items (by id and title)",
            "set store.url to a store of its own; if it is the same data set after all: "
            "python -m recsys.events adopt --store URL --bundle PATH",
        )
