"""A lock that ends with the process that holds it, however it ends."""

import os
import sys
from pathlib import Path


class Lock:
    """Taken at once or not at all; see ``held``.

    Args:
        path: a file, which is made if need be, or a folder.
    """

    def __init__(self, path: Path) -> None:
        self.held = True
        self._descriptor: int | None = None
        if sys.platform == "win32":  # where nothing is locked
            return
        import fcntl

        try:
            how = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
            self._descriptor = os.open(path, how | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another one has it, or there is no such place
            self.held = False
            self.release()

    @property
    def descriptors(self) -> list[int]:
        """Of what is open; a process that is started with them holds the lock, too."""
        return [] if self._descriptor is None else [self._descriptor]

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
