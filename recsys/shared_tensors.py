"""Tensors that one of several processes computes, and all of them map from its file.

What is read from safetensors files is shared by itself, since they are mapped. What is derived from
it at load would lie in the memory of each process.
"""

import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

log = logging.getLogger(__name__)

# More than those of the bundle that is served and of one that is about to take its place.
_KEPT_FILES = 6
_folder: Path | None = None


def share_in(folder: Path | None) -> None:
    """Let this process share with the others that name the same folder; None: not any more."""
    global _folder
    _folder = folder


def computed_once(inputs: Sequence[Tensor], compute: Callable[[], Tensor]) -> Tensor:
    """``compute()``, or what another process has computed of the same inputs.

    Args:
        inputs: on the CPU, all that the result depends on.

    The result is read, never written to: that would copy its pages.
    """
    if _folder is None:
        return compute()
    file = _folder / f"{_digest(inputs)}.safetensors"
    try:
        with _alone(_folder):
            if not file.exists():
                _write(compute().contiguous(), file)
                _forget_old(_folder)
            return load_file(file)["tensor"]
    except (OSError, SafetensorError) as error:
        log.warning("not shared with the other processes: %s", error)
        return compute()


def _write(tensor: Tensor, file: Path) -> None:
    partial = file.with_suffix(".partial")
    try:
        save_file({"tensor": tensor}, partial)
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)  # such as on a full disk
        raise


def _digest(inputs: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in inputs:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().numpy().data)
    return digest.hexdigest()


def _forget_old(folder: Path) -> None:
    """Who has mapped a file keeps it; who has not computes anew."""
    files = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime_ns)
    for file in files[:-_KEPT_FILES]:
        file.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the others wait, rather than compute the same."""
    import fcntl  # not on Windows, where processes do not share a port either

    # What lies in /tmp for long is deleted on many machines. In its place anybody could have put
    # another folder.
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    with (folder / "lock").open("w") as lock:
        # Freed with the descriptor, also when the process is killed.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
