"""What training changes of the process that it runs in, and gives back.

A command owns its process. A function that a notebook or a service calls is a guest there: seeds,
threads, signal handlers, variables of the environment and logging are the host's.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from recsys.core.threads import WAITING, sleep_while_waiting, threads_kept

_PACKAGE = "recsys"
_VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", *WAITING)


@contextmanager
def as_guest(progress: bool) -> Iterator[None]:
    """Give all of it back at the end, also after an error or an interruption.

    Args:
        progress: whether the package's progress lines are shown, see ``_progress_shown``.
    """
    from pytorch_lightning.utilities.seed import isolate_rng

    with ExitStack() as kept:
        kept.enter_context(_environment_kept())
        kept.enter_context(threads_kept())
        kept.enter_context(isolate_rng())
        kept.enter_context(_signals_kept())
        if progress:
            kept.enter_context(_progress_shown())
        sleep_while_waiting()  # for the processes that are started
        yield


@contextmanager
def _environment_kept() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Handlers of signals; and Ctrl-C is ``KeyboardInterrupt``, as it is everywhere in Python.

    Lightning ignores the signal from then on, and ends the program.
    """
    names = [signal.SIGINT, signal.SIGTERM]
    is_main = threading.current_thread() is threading.main_thread()
    before = {name: signal.getsignal(name) for name in names} if is_main else {}
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        for name, handler in before.items():
            if handler is not None:  # None: set by a program in C, and so not to be set again
                signal.signal(name, handler)


@contextmanager
def _progress_shown() -> Iterator[None]:
    """Write progress lines to standard error, unless the host program already shows them."""
    logger = logging.getLogger(_PACKAGE)
    if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():
        yield
        return
    handler = _Progress(logger)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _Progress(logging.Handler):
    """Prints progress; what is a warning goes to the host's handlers, as it always does."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            print(record.getMessage(), file=sys.stderr, flush=True)
        elif self._logger.parent is not None:
            self._logger.parent.callHandlers(record)
