"""Ctrl-C, or SIGTERM, ends a command in good order: one line that says how to go on, status 130 or
143.
"""

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recsys.training.run_folder import RunFolder

_KILLED = 128


@contextmanager
def interruptible(line: Callable[[], str]) -> Iterator[None]:
    """While it is open, an interruption unwinds all that is going on and ends the process.

    A second signal ends it at once.

    Args:
        line: what is written to standard error then.
    """
    received = [signal.SIGINT]

    def terminate(number: int, frame: FrameType | None) -> None:
        del frame
        received[0] = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, terminate) if is_main else None
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning turns the interruption of a fit into an exit of its own.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        print(line(), file=sys.stderr, flush=True)
        sys.exit(_KILLED + received[0])
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


class HowToGoOn:
    """What an interrupted ``train.py`` says: what is kept, and the command that goes on with it."""

    def __init__(self) -> None:
        self._folder: RunFolder | None = None

    def opened(self, folder: "RunFolder") -> None:
        """Tell of the folder of the run, once there is one."""
        self._folder = folder

    def line(self, output_dir: str) -> str:
        """The line.

        Args:
            output_dir: as an override says it, ``output_dir=…``, or empty.
        """
        if self._folder is None:
            return "interrupted: nothing was trained yet; start again with the same command"
        command = shlex.join(["python", sys.argv[0], "resume=true", *filter(None, [output_dir])])
        kept = self._folder.kept()
        return f"interrupted: {self._folder.path} keeps {kept}; go on with: {command}"
