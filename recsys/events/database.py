"""One database, SQLite or PostgreSQL: how it is reached, and what happens when it is not.

SQLite runs in WAL mode with ``synchronous=FULL``: a transaction is on disk when it is committed,
and readers do not wait for writers. A write begins with BEGIN IMMEDIATE: one that begins as a read
fails at once, whatever the timeout, when another process has written meanwhile.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from recsys.errors import InputError
from recsys.events.types import StoreUnavailableError

SQLITE, POSTGRESQL = "sqlite+aiosqlite", "postgresql+asyncpg"

T = TypeVar("T")

_EXAMPLES = f"{SQLITE}:///data/events.db or {POSTGRESQL}://user:password@host/database"
_GRACE_SECONDS = 0.5
"""The database itself gives up first, which leaves the connection in a known state."""
_NUM_CONNECTIONS = 8
_SETTLED_SECONDS = 0.1
"""More than the resolution of files' times."""

_FAILURES = (
    SQLAlchemyError,
    OSError,
    TimeoutError,
    # What asyncpg says while it connects comes as it is.
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)


def parse_url(text: str) -> URL:
    """The URL of a database that the store can use.

    Raises:
        InputError: when it is none; the message does not repeat it, since it may hold a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # ``user:password`` without a host reads as a host and its port, which the cause repeats.
        raise InputError("a database URL", "something else", f"give {_EXAMPLES}") from None
    if url.drivername not in (SQLITE, POSTGRESQL):
        raise InputError(f"a {SQLITE} or {POSTGRESQL} URL", url.drivername, f"give {_EXAMPLES}")
    if url.drivername == SQLITE and url.database in (None, "", ":memory:"):
        raise InputError("the path of a file", "a database in memory", f"give {SQLITE}:///PATH")
    options = set() if url.drivername == SQLITE else set(signature(asyncpg.connect).parameters)
    if unknown := sorted(url.query.keys() - options):
        raise InputError(
            "no options in the URL but those of asyncpg.connect, such as ssl",
            ", ".join(unknown),
            "remove them",
        )
    return url


class Database:
    """Runs operations, each in a transaction or as single statements, within a time limit.

    It keeps connections for later operations, and makes new ones where the server has closed them.

    Args:
        timeout_seconds: for connecting, for a lock, for a statement; an operation that takes half a
            second longer than this is given up.
    """

    def __init__(self, url: URL, timeout_seconds: float) -> None:
        self.is_sqlite = url.drivername == SQLITE
        self._limit = timeout_seconds + _GRACE_SECONDS
        # Each commit of SQLite's writes to this file.
        self._wal = Path(f"{url.database}-wal") if self.is_sqlite else None
        self._seen: tuple[int, int, int] | None = None
        self._running: set[asyncio.Task[Any]] = set()
        # Writers of one process queue here, where waiting costs nothing: SQLite's would poll.
        self._writing = asyncio.Lock()
        engine = create_async_engine(
            url,
            connect_args=_connect_args(self.is_sqlite, timeout_seconds),
            pool_size=_NUM_CONNECTIONS,
            max_overflow=0,
            pool_timeout=timeout_seconds,
        )
        self._engine = engine
        if self.is_sqlite:
            event.listen(engine.sync_engine, "connect", _set_up_sqlite)
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
            self._reads = engine
        else:
            self._reads = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writes = engine.execution_options(writes=True)

    def may_have_changed(self) -> bool:
        """Whether there may be a commit since this was asked last."""
        if self._wal is None:
            return True
        try:
            status = self._wal.stat()
        except OSError:
            return True
        now = time.time()
        # Where the file has just been written, the clock of its time may not tell the next write.
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        is_settled = now - status.st_mtime > _SETTLED_SECONDS
        changed = seen != self._seen or not is_settled
        self._seen = seen if is_settled else None
        return changed

    async def read(self, operation: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """The result of an operation, each of whose statements sees the latest commits.

        Raises:
            StoreUnavailableError: when the database fails, or time is up.
        """
        return await self._limited(self._run(self._reads, operation))

    async def write(self, operation: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """The result of an operation in one transaction; it is committed when this returns.

        An operation may run twice, the first time in vain.

        Raises:
            StoreUnavailableError: when the database fails, or time is up.
        """
        return await self._limited(self._run_alone(operation))

    async def close(self) -> None:
        """Close all connections."""
        if self._running:
            await asyncio.wait(self._running, timeout=self._limit)
        await self._engine.dispose()

    async def _run_alone(self, operation: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._writing:
            return await self._run(self._writes, operation)

    async def _run(
        self, engine: AsyncEngine, operation: Callable[[AsyncConnection], Awaitable[T]]
    ) -> T:
        try:
            return await _in_connection(engine, operation)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        # The server has closed this connection while it was idle, and all others too: those have
        # been dropped by now.
        return await _in_connection(engine, operation)

    async def _limited(self, operation: Awaitable[T]) -> T:
        """The result; who waits does not wait for the end of what has been given up."""
        task = asyncio.ensure_future(operation)
        self._running.add(task)
        task.add_done_callback(self._forget)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._limit)
        finally:
            task.cancel()  # nothing happens to one that is done
        if not done:
            raise StoreUnavailableError(f"no answer within {self._limit:g} s")
        try:
            return task.result()
        except _FAILURES as error:
            raise StoreUnavailableError(reason(error)) from error

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # has been looked at


async def _in_connection(
    engine: AsyncEngine, operation: Callable[[AsyncConnection], Awaitable[T]]
) -> T:
    async with engine.begin() as connection:
        return await operation(connection)


def reason(error: BaseException) -> str:
    """What the driver says, in one line."""
    original = getattr(error, "orig", None) or error
    cause = original.__cause__ or original
    return " ".join(str(cause).split())[:300] or type(cause).__name__


def _connect_args(is_sqlite: bool, timeout_seconds: float) -> dict[str, Any]:
    if is_sqlite:
        # Without an isolation level the driver leaves BEGIN to us.
        return {"timeout": timeout_seconds, "isolation_level": None}
    milliseconds = round(1000 * timeout_seconds)
    return {
        "timeout": timeout_seconds,
        "command_timeout": timeout_seconds,
        "server_settings": {
            "application_name": "recsys",
            "lock_timeout": f"{milliseconds}",
            "statement_timeout": f"{milliseconds}",
            # A process that is stopped in mid-transaction must not stop the others for long.
            "idle_in_transaction_session_timeout": f"{5 * milliseconds}",
        },
    }


def _set_up_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def prepare_folder(url: URL, *, create: bool) -> None:
    """Make the folder of a SQLite file, or without ``create`` make sure that the file is there.

    Raises:
        InputError: when it is not there, or cannot be made.
    """
    path = Path(str(url.database))
    if not create and not path.is_file():
        raise InputError(f"an event store at {path}", "no such file", "check the URL")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"a folder {path.parent}", reason(error), "choose another one") from error
