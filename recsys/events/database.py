"""One database, SQLite or PostgreSQL: how it is reached, and what happens when it is not.

SQLite runs in WAL mode with ``synchronous=FULL``: a transaction is on disk when it is committed,
and readers do not wait for writers. A write begins with BEGIN IMMEDIATE: one that begins as a read
fails at once, whatever the timeout, when another process has written meanwhile. What is deleted is
overwritten with zeros; ``SqliteFiles`` tells whether the files are still the store's.
"""

import asyncio
import contextlib
import logging
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import asyncpg
from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from recsys.errors import InputError
from recsys.events.immediate import ImmediateReader
from recsys.events.sqlite_files import SqliteFiles
from recsys.events.types import StoreReplacedError, StoreUnavailableError

SQLITE, POSTGRESQL = "sqlite+aiosqlite", "postgresql+asyncpg"
_BEFORE_A_PATH = f"{SQLITE}:///"

T = TypeVar("T")

log = logging.getLogger(__name__)

_EXAMPLES = f"{SQLITE}:///data/events.db or {POSTGRESQL}://user:password@host/database"
_GRACE_SECONDS = 0.5
"""The database itself gives up first, which leaves the connection in a known state."""
_NUM_CONNECTIONS = 8
_NUM_READERS = 4
_SETTLED_SECONDS = 0.1
"""More than the resolution of files' times."""
_SECONDS_BETWEEN_CHECKS = 0.01
"""Between looks at whether the files have been replaced, for reads in the asking thread."""
_PAGES_OF_WAL = 1000
"""After which it is time for a checkpoint: as SQLite has it."""
_SECONDS_OF_A_CHECKPOINT, _SECONDS_TO_RETRY = 1.0, 0.05
_LARGEST_FIRST_NUMBER = 2**30
_APPLICATION_ID = 0x72637379
"""Of a file in which all that was deleted has been overwritten."""

_FAILURES = (
    SQLAlchemyError,
    OSError,
    TimeoutError,
    # What asyncpg says while it connects comes as it is.
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)


def sqlite_url(path: Path) -> URL:
    """Of a store in this file."""
    return URL.create(SQLITE, database=str(path))


def parse_url(text: str | URL) -> URL:
    """The URL of a database that the store can use.

    The path of a SQLite file stands in the text as it is: ``%``, ``?`` and ``#`` are themselves.

    Raises:
        InputError: when it is none; the message does not repeat it, since it may hold a password.
    """
    if isinstance(text, str) and text.startswith(_BEFORE_A_PATH):
        text = sqlite_url(_as_written(text.removeprefix(_BEFORE_A_PATH)))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # ``user:password`` without a host reads as a host and its port, which the cause repeats.
        raise InputError("a database URL", "something else", f"give {_EXAMPLES}") from None
    if url.drivername not in (SQLITE, POSTGRESQL):
        raise InputError(f"a {SQLITE} or {POSTGRESQL} URL", url.drivername, f"give {_EXAMPLES}")
    if url.drivername == SQLITE and url.database in (None, "", ".", ":memory:"):
        raise InputError("the path of a file", "a database in memory", f"give {SQLITE}:///PATH")
    options = set() if url.drivername == SQLITE else set(signature(asyncpg.connect).parameters)
    if unknown := sorted(url.query.keys() - options):
        raise InputError(
            "no options in the URL but those of asyncpg.connect, such as ssl",
            ", ".join(unknown),
            "remove them",
        )
    return url


def _as_written(path: str) -> Path:
    """The path, or where it leads nowhere and is one with escapes, the one that it means."""
    plain, unescaped = Path(path), Path(unquote(path))
    return unescaped if not plain.parent.exists() and unescaped.parent.exists() else plain


class Database:
    """Runs operations, each in a transaction or as single statements, within a time limit.

    It keeps connections for later operations, and makes new ones where the server has closed them.

    Args:
        timeout_seconds: for connecting, for a lock, for a statement; an operation that takes half a
            second longer than this is given up.

    Raises:
        OSError: when the file of SQLite's cannot be opened.
    """

    def __init__(self, url: URL, timeout_seconds: float) -> None:
        self.is_sqlite = url.drivername == SQLITE
        self._limit = timeout_seconds + _GRACE_SECONDS
        self._files = SqliteFiles(Path(str(url.database))) if self.is_sqlite else None
        self._seen: tuple[int, int, int] | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._checkpointing: asyncio.Task[None] | None = None
        self._is_to_scrub = False
        self._is_closed = False
        # Writers of one process queue here, where waiting costs nothing: SQLite's would poll.
        self._writing = asyncio.Lock()
        self._one_checkpoint = asyncio.Lock()
        engine = create_async_engine(
            url,
            connect_args=_connect_args(self.is_sqlite, timeout_seconds),
            pool_size=_NUM_CONNECTIONS,
            max_overflow=0,
            pool_timeout=timeout_seconds,
        )
        self._engine = engine
        self._readers = _SqliteReaders(url, timeout_seconds) if self.is_sqlite else None
        self._immediate: ImmediateReader | None = None
        self._check_again = 0.0
        if self.is_sqlite:
            event.listen(engine.sync_engine, "connect", _set_up_sqlite)
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
            self._reads = engine
        else:
            self._reads = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writes = engine.execution_options(writes=True)

    async def settle(self) -> None:
        """To be called once there are tables: from here on the files are watched.

        Raises:
            StoreUnavailableError: when the database fails, or time is up.
        """
        if self._files is not None:
            self._files.opened(await self.write(_next_number))
            with contextlib.suppress(sqlite3.Error):
                self._immediate = ImmediateReader(self._files.path)
            await self.scrub()

    def may_have_changed(self) -> bool:
        """Whether there may be a commit since this was asked last.

        Raises:
            StoreReplacedError: when its files are not at their place any more.
        """
        if self._files is None:
            return True
        self._files.check()
        try:
            # Each commit of SQLite's writes to this file.
            status = self._files.wal.stat()
        except OSError:
            return True
        now = time.time()
        # Where the file has just been written, the clock of its time may not tell the next write.
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        is_settled = now - status.st_mtime > _SETTLED_SECONDS
        changed = seen != self._seen or not is_settled
        self._seen = seen if is_settled else None
        return changed

    async def read(self, operation: Callable[[Connection], T]) -> T:
        """The result of an operation, each of whose statements sees the latest commits.

        Raises:
            StoreUnavailableError: when the database fails, or time is up.
        """
        self._check_open()
        if self._readers is not None:
            return await self._limited(self._readers.run(operation))

        async def run(connection: AsyncConnection) -> T:
            return await connection.run_sync(operation)

        return await self._limited(self._run(self._reads, run))

    @property
    def immediate(self) -> ImmediateReader | None:
        """For reads in the thread that asks; None where there are none, or the files are others."""
        if self._is_closed or self._files is None or self._files.is_lost:
            return None
        # The check costs more than the read, so it is not made for each; a read that comes just
        # before the files are replaced finds the same as one just after.
        if time.monotonic() >= self._check_again:
            try:
                self._files.check()
            except StoreReplacedError:
                return None
            self._check_again = time.monotonic() + _SECONDS_BETWEEN_CHECKS
        return self._immediate

    async def write(self, operation: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """The result of an operation in one transaction; it is committed when this returns.

        An operation may run twice, the first time in vain.

        Raises:
            StoreUnavailableError: when the database fails, or time is up, or what was committed is
                not in the file that has the path.
        """
        await self._check_files()
        result = await self._limited(self._run_alone(operation))
        await self._check_files()
        self._keep_small()
        return result

    async def scrub(self) -> None:
        """Empty SQLite's WAL, which has what was deleted; what fails is left to ``scrub_again``."""
        self._is_to_scrub = True
        await self.scrub_again()

    async def scrub_again(self) -> None:
        """Do what ``scrub`` could not do since others were reading."""
        if self._files is None or not self._is_to_scrub:
            return
        until = time.monotonic() + self._limit
        try:
            await self._overwrite_old()
            # Another process's checkpoint is in the way at once.
            while not (is_done := await self._checkpoint("TRUNCATE")) and time.monotonic() < until:
                await asyncio.sleep(_SECONDS_TO_RETRY)
            self._is_to_scrub = not is_done
        except StoreReplacedError:
            raise
        except (StoreUnavailableError, *_FAILURES) as error:
            log.warning("what was deleted is still in %s: %s", self._files.wal, reason(error))

    async def _overwrite_old(self) -> None:
        """Rewrite a store of before, where what was deleted has not been overwritten."""
        found = await self._run(self._reads, _application_id)
        if found != _APPLICATION_ID:
            await self._run(self._reads, _vacuumed)  # takes as long as it does

    async def close(self) -> None:
        """Close all connections; nothing can be read or written any more."""
        self._is_closed = True
        if self._checkpointing is not None:
            await asyncio.wait({self._checkpointing}, timeout=self._limit)
        if self._running:
            await asyncio.wait(self._running, timeout=self._limit)
        if self._files is not None:
            if self._files.may_checkpoint:
                with contextlib.suppress(StoreUnavailableError):
                    await self._limited(self._run(self._reads, _checkpointed("FULL")))
            self._files.let_go()
        if self._immediate is not None:
            self._immediate.close()
        if self._readers is not None:
            self._readers.close()
        await self._engine.dispose()
        if self._files is not None:
            self._files.close()

    def _check_open(self) -> None:
        if self._files is not None:
            self._files.check()
        if self._is_closed:
            raise StoreUnavailableError("it closed")

    async def _check_files(self) -> None:
        self._check_open()
        if self._files is None:
            return
        until = time.monotonic() + _SECONDS_OF_A_CHECKPOINT
        while self._files.is_cut:
            if time.monotonic() > until:
                raise StoreUnavailableError("its file cut off; put one in its place that is whole")
            await asyncio.sleep(_SECONDS_OF_A_CHECKPOINT / 50)

    def _keep_small(self) -> None:
        """Begin a checkpoint where it is time for one; writers need not wait for it."""
        if self._files is None or (self._checkpointing and not self._checkpointing.done()):
            return
        if self._files.num_pages_of_wal > _PAGES_OF_WAL:
            self._checkpointing = asyncio.create_task(self._try_checkpoint())

    async def _try_checkpoint(self) -> None:
        # When it fails, the WAL grows, and the next write tries again.
        with contextlib.suppress(StoreUnavailableError):
            await self._checkpoint("PASSIVE")

    async def _checkpoint(self, mode: str) -> bool:
        """Whether nobody was in the way. A number of its own tells it from a foreign hand."""
        async with self._one_checkpoint:
            await self._limited(self._run_alone(_next_number))
            await self._check_files()
            is_done = await self._limited(self._run(self._reads, _checkpointed(mode)))
            await self._check_files()  # which notes the number
            return is_done

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


class _SqliteReaders:
    """Reads a SQLite file in threads, each read in one of them from its first step to its last.

    An asynchronous driver has a thread, too, but goes to it and back for each step: six times for a
    statement, which costs more than the statement.

    Args:
        timeout_seconds: for a lock.
    """

    def __init__(self, url: URL, timeout_seconds: float) -> None:
        self._threads = ThreadPoolExecutor(_NUM_READERS, "store")
        self._engine = create_engine(
            url.set(drivername="sqlite+pysqlite"),
            connect_args=_connect_args(True, timeout_seconds),
            pool_size=_NUM_READERS,
            max_overflow=0,
        )
        event.listen(self._engine, "connect", _set_up_sqlite)

    def run(self, operation: Callable[[Connection], T]) -> Awaitable[T]:
        """The result of an operation."""
        return asyncio.get_running_loop().run_in_executor(self._threads, self._run, operation)

    def _run(self, operation: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            return operation(connection)

    def close(self) -> None:
        """Close the connections; a read that is under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()


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
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.execute("PRAGMA wal_autocheckpoint = 0")  # each has a number, see ``SqliteFiles``
    cursor.close()


async def _application_id(connection: AsyncConnection) -> int:
    return int((await connection.exec_driver_sql("PRAGMA application_id")).scalar_one())


async def _vacuumed(connection: AsyncConnection) -> None:
    await connection.exec_driver_sql("VACUUM")
    await connection.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION_ID}")


async def _next_number(connection: AsyncConnection) -> int:
    found = await connection.exec_driver_sql("PRAGMA user_version")
    number = int(found.scalar_one())
    number = number + 1 if number > 0 else 1 + secrets.randbelow(_LARGEST_FIRST_NUMBER)
    await connection.exec_driver_sql(f"PRAGMA user_version = {number}")
    return number


def _checkpointed(mode: str) -> Callable[[AsyncConnection], Awaitable[bool]]:
    async def run(connection: AsyncConnection) -> bool:
        found = await connection.exec_driver_sql(f"PRAGMA wal_checkpoint({mode})")
        busy, in_wal, copied = tuple(found.one())
        return not busy and bool(in_wal == copied)

    return run


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def prepare_folder(url: URL, *, create: bool, make_folder: bool) -> None:
    """Make the folder of a SQLite file, or without ``create`` make sure that the file is there.

    Raises:
        InputError: when it is not there, or cannot be made.
    """
    path = Path(str(url.database))
    if not create and not path.is_file():
        raise InputError(f"an event store at {path}", "no such file", "check the URL")
    if not make_folder:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"a folder {path.parent}", reason(error), "choose another one") from error
