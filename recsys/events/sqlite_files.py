"""Whether SQLite's open files are those that have the store's path, with what it wrote in them.

SQLite goes on, and says nothing, when its files are deleted, replaced or written over, as a restore
does. What is committed then is lost. So this looks at the files themselves: device and inode of
each, a number in the database's header that grows with each checkpoint, and whether the latest
commit of the WAL's index is in the WAL (https://sqlite.org/walformat.html).
"""

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from recsys.events.types import StoreReplacedError

_NUMBER_AT = 60
"""Of ``PRAGMA user_version`` in the database's header."""
_PAGE_SIZE_AT, _NUM_PAGES_AT = 16, 28
_HEADER_BYTES = 100
_MOST_CHECKPOINTS = 2**20
"""Of one process's life; the number of another store is anywhere."""
_INDEX_VERSION = 3007000
_INDEX_HEADER = struct.Struct("=I10xHI4xII8s")
_WAL_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_TRIES = 20

_Loss = Literal["moved", "renewed", "overwritten", "log overwritten"]


class _IndexHeader(NamedTuple):
    page: int
    last_frame: int
    salt_and_checksum: bytes


class SqliteFiles:
    """The database, its WAL and the WAL's index; held open, so that no inode is used again.

    To be used by one ``Database`` of a process at a time: POSIX drops a process's locks on a file
    when any of its descriptors is closed.

    Args:
        path: of the database, made when it is not there.

    Raises:
        OSError: when it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wal, self.index = Path(f"{path}-wal"), Path(f"{path}-shm")
        self._fds = {path: os.open(path, os.O_RDWR | os.O_CREAT, 0o644)}
        self._number: int | None = None
        self._least = 0
        self._loss: _Loss | None = None

    def opened(self, number: int) -> None:
        """To be called once SQLite has the files open.

        Args:
            number: by ``PRAGMA user_version``; the file may have a former one up to a checkpoint.
        """
        try:
            for file in (self.wal, self.index):
                self._fds[file] = os.open(file, os.O_RDWR)
        except OSError as error:
            raise StoreReplacedError("its files were removed while they were opened") from error
        self._least, self._number = number, self._read_number()
        self.check()

    def check(self) -> None:
        """Raise StoreReplacedError, from then on always, unless all is as SQLite believes."""
        if self._loss is None:
            self._loss = self._found_loss()
        if self._loss is not None:
            raise StoreReplacedError("its files were deleted, replaced or written over")

    def _found_loss(self) -> _Loss | None:
        if not self._has_path(self.path):
            return "moved"
        if self._number is None:
            return None
        number = self._read_number()
        if number is None:
            return "overwritten"
        if number != self._number:
            if not 0 <= number - self._least <= _MOST_CHECKPOINTS:
                return "overwritten"
            self._number = self._least = number
        # After the number: another process may have let go of files that were written over.
        if not self._has_path(self.wal) or not self._has_path(self.index):
            return "renewed"
        return None if self._has_latest_commit() else "log overwritten"

    @property
    def is_cut(self) -> bool:
        """Whether the database is shorter than its header says; a checkpoint makes it so at times,
        for as long as it takes."""
        header = self._read(self.path, _HEADER_BYTES, 0)
        page = int.from_bytes(header[_PAGE_SIZE_AT : _PAGE_SIZE_AT + 2])
        pages = int.from_bytes(header[_NUM_PAGES_AT : _NUM_PAGES_AT + 4])
        size = pages * (65536 if page == 1 else page)
        return os.fstat(self._fds[self.path]).st_size < size

    def _has_path(self, file: Path) -> bool:
        try:
            there, own = file.stat(), os.fstat(self._fds[file])
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)

    def _read_number(self) -> int | None:
        """None where there is no header."""
        header = self._read(self.path, _HEADER_BYTES, 0)
        if len(header) < _HEADER_BYTES:
            return None
        return int.from_bytes(header[_NUMBER_AT : _NUMBER_AT + 4])

    @property
    def num_pages_of_wal(self) -> int:
        """That are in use, not yet overwritten from the start."""
        header = self._read_index()
        return 0 if header is None else header.last_frame

    def _has_latest_commit(self) -> bool:
        """Whether the WAL's last frame, by its index, is in it."""
        header: _IndexHeader | None = None
        for _ in range(_TRIES):
            before, header = header, self._read_index()
            if header is None or not header.last_frame:
                return True
            at = _WAL_HEADER_BYTES + (header.last_frame - 1) * (header.page + _FRAME_HEADER_BYTES)
            frame = self._read(self.wal, _FRAME_HEADER_BYTES, at)
            if frame[8:] == header.salt_and_checksum:
                return True
            # Another process may have begun the WAL anew in between.
            if header == before:
                return False
        return True

    def _read_index(self) -> "_IndexHeader | None":
        """None where it is not to be understood."""
        if self.index not in self._fds:
            return None
        header = self._read(self.index, _INDEX_HEADER.size, 0)
        if len(header) < _INDEX_HEADER.size:
            return None
        version, page, last_frame, first, second, salt = _INDEX_HEADER.unpack(header)
        if version != _INDEX_VERSION:
            return None
        # The frame has its checksum in another byte order.
        checksum = struct.pack(">II", first, second)
        return _IndexHeader(65536 if page == 1 else page, last_frame, salt + checksum)

    def _read(self, file: Path, number: int, offset: int) -> bytes:
        os.lseek(self._fds[file], offset, os.SEEK_SET)
        return os.read(self._fds[file], number)

    @property
    def is_lost(self) -> bool:
        """Whether ``check`` has failed."""
        return self._loss is not None

    @property
    def may_checkpoint(self) -> bool:
        """Whether what is in the lost WAL belongs into the open database: to be done before
        ``let_go``, as long as no other process has begun another WAL.
        """
        if self._loss not in ("moved", "renewed") or not self._is_wal_whole():
            return False
        return self._loss == "moved" or self._has_path(self.index) or not self.index.exists()

    def _is_wal_whole(self) -> bool:
        """False where another process has let go of it, whatever has been written to it since."""
        header = self._read_index()
        if header is None or not header.last_frame:
            return False
        start = self._read(self.wal, _WAL_HEADER_BYTES, 0)
        return start[16:24] == header.salt_and_checksum[:8] and self._has_latest_commit()

    def let_go(self) -> None:
        """Leave the names to what comes next, so that it finds nothing of the lost files.

        Whoever still has the lost files open cannot write an old WAL into another database: it is
        empty then. Where the database has moved, SQLite itself sees to that.
        """
        if self._loss is None or self.wal not in self._fds:
            return
        with _locked(self._fds[self.wal]), contextlib.suppress(OSError):
            if self._has_path(self.wal) and self._loss != "renewed":
                content = self._read(self.wal, os.fstat(self._fds[self.wal]).st_size, 0)
                self.wal.unlink()
                if self._loss == "log overwritten":  # what was put there is what is wanted
                    _write(self.wal, content)
            if not self._has_path(self.wal) and self._loss != "moved":
                os.truncate(self._fds[self.wal], 0)
            if self._has_path(self.index):
                self.index.unlink()

    def close(self) -> None:
        """To be called when SQLite has closed the files."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()


@contextlib.contextmanager
def _locked(fd: int) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # there is one process, then
        yield
        return
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _write(file: Path, content: bytes) -> None:
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
