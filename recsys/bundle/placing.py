"""Bundles appear under their names at once, and ``latest`` always names a whole one."""

import ctypes
import errno
import glob
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.core.locks import Lock
from recsys.errors import InputError

LATEST = "latest"

_AT_FDCWD = -100
_EXCHANGE = 2
"""RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS."""


@contextmanager
def unfinished(root: Path, name: str) -> Iterator[Path]:
    """A fresh folder to write a bundle in; it goes away unless it is put in place.

    What killed writers of the same name have left behind goes, too.
    """
    for left in root.glob(f"{glob.escape(f'.{name}.')}*partial"):
        lock = Lock(left)
        if lock.held:
            _remove(left)
        lock.release()
    partial = root / f".{name}.{secrets.token_hex(4)}.partial"
    partial.mkdir()
    lock = Lock(partial)
    try:
        yield partial
    finally:
        _remove(partial)
        lock.release()


def put_in_place(partial: Path, bundle: Path) -> None:
    """Give a finished folder its name; what had the name before is then under the other one.

    There is a bundle of that name at each moment from then on, whatever is killed when, where the
    file system can exchange two names (those of Linux and macOS can, a network's may not).
    """
    try:
        partial.rename(bundle)
    except OSError as error:
        taken = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
        if error.errno not in taken:
            raise
        if not _exchange(partial, bundle):
            aside = partial.with_name(f"{partial.name}.replaced")
            bundle.rename(aside)
            partial.rename(bundle)
            aside.rename(partial)
    fsync(bundle.parent)


def make_latest(bundle: Path) -> None:
    """Let ``latest``, beside the bundle, name it from now on.

    Raises:
        InputError: as ``check_latest``.
    """
    check_latest(bundle.parent)
    link = bundle.parent / f".{LATEST}.{secrets.token_hex(4)}.partial"
    link.symlink_to(bundle.name)
    link.replace(bundle.parent / LATEST)
    fsync(bundle.parent)


def check_latest(root: Path) -> None:
    """Raise InputError where ``latest`` cannot be moved, since it is no link."""
    latest = root / LATEST
    if latest.exists() and not latest.is_symlink():
        raise InputError(f"a link at {latest}", "a folder or file", "give it another name")


def fsync(path: Path) -> None:
    """Let what was written to a file or folder survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Swap what two names name, in one step; False where that cannot be done."""
    name = {"linux": "renameat2", "darwin": "renameatx_np"}.get(sys.platform)
    function = getattr(ctypes.CDLL(None), name, None) if name else None
    if function is None:
        return False
    # macOS has another number for "relative to the working folder", which absolute paths ignore.
    paths = [os.fsencode(path.absolute()) for path in (one, other)]
    done: int = function(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _EXCHANGE)
    return done == 0


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
