"""Independent calls side by side, each in a process of its own with its own threads.

Processes are started anew (spawn) rather than forked: a copy of a process whose numeric libraries
have started threads may hang.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType, TracebackType
from typing import Any, Self, TypeVar

from recsys.core.cores import available_cores
from recsys.errors import InputError

Result = TypeVar("Result")

_SECONDS_TO_END = 5.0


def chosen_processes(wanted: object, threads: int, most: int, on_cpu: bool) -> int:
    """``wanted``, or else as many as cores allow; one where all would share a GPU.

    Args:
        wanted: a config's ``processes``; None leaves it to the rest. threads: of each. most: calls
            that there are to make side by side.

    Raises:
        InputError: when it is no positive number.
    """
    if wanted is None:
        return max(1, min(available_cores() // threads, most)) if on_cpu else 1
    if type(wanted) is not int or not 1 <= wanted <= 1024:
        raise InputError("processes in 1..1024, or null", repr(wanted), "set processes=1")
    return min(wanted, most)


class Workers:
    """Processes that make calls side by side. With fewer than two, this process makes them.

    Calls, such as partials of functions, and results are pickled. Whatever ends the ``with`` block,
    an interruption too, ends the processes; so does the end of the process that has started them.

    Args:
        number: of processes. threads: of the numeric libraries, in each.
    """

    def __init__(self, number: int = 1, threads: int = 1) -> None:
        self.number = number
        self.threads = threads
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the processes, so that they have loaded what they need by the first call."""
        context = multiprocessing.get_context("spawn")
        while 1 < self.number != len(self._processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self.threads), daemon=True)
            with _without_main():
                process.start()
            theirs.close()
            self._processes[ours] = process

    def results(
        self,
        calls: Iterable[Callable[[], Result]],
        done: Callable[[int], object] | None = None,
    ) -> list[Result]:
        """Of all calls, in their order; a call is taken once a process is free to make it.

        Args:
            done: is told how many have been made, after each.

        Raises:
            what a call raises; no further ones are made.
            InputError: when a process ends during a call.
        """
        results: dict[int, Result] = {}
        for number, result in self._made_here(calls) if self.number < 2 else self._results(calls):
            results[number] = result
            if done is not None:
                done(len(results))
        return [results[number] for number in sorted(results)]

    def _made_here(self, calls: Iterable[Callable[[], Result]]) -> Iterator[tuple[int, Result]]:
        return ((number, task()) for number, task in enumerate(calls))

    def _results(self, calls: Iterable[Callable[[], Result]]) -> Iterator[tuple[int, Result]]:
        """Numbers of calls, with their results as they come."""
        self.start()
        waiting = enumerate(calls)
        idle, busy = list(self._processes), dict[Connection, int]()
        try:
            while True:
                while idle and (numbered := next(waiting, None)) is not None:
                    connection = idle.pop(0)
                    busy[connection] = numbered[0]
                    with suppress(BrokenPipeError):  # the process has ended, as is told below
                        _send(connection, numbered[1])
                if not busy:
                    return
                # A fit takes as long as it takes; a process that ends closes its connection.
                for connection in [one for one in wait(list(busy)) if isinstance(one, Connection)]:
                    # By an answer, an error too, the process has nothing to do any more.
                    number = busy.pop(connection)
                    yield number, self._received(connection)
                    idle.append(connection)
        finally:
            self._end(list(busy))  # calls that nobody waits for any more

    def _received(self, connection: Connection) -> Any:
        try:
            result, error = pickle.loads(connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            process = self._processes[connection]
            process.join(_SECONDS_TO_END)
            exit_code = process.exitcode
            self._end([connection])
            raise InputError(
                "a training process to end its work",
                f"exit code {exit_code}",
                "free memory, or train in one process: processes=1",
            ) from None
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._end(list(self._processes))

    def _end(self, connections: Iterable[Connection]) -> None:
        processes = {connection: self._processes.pop(connection) for connection in connections}
        for process in processes.values():
            process.terminate()
        for connection, process in processes.items():
            connection.close()
            process.join(_SECONDS_TO_END)
            if process.is_alive():
                process.kill()
                process.join(_SECONDS_TO_END)


@contextmanager
def _without_main() -> Iterator[None]:
    """Let a process that starts meanwhile not run the main program's file again.

    ``spawn`` does so for the sake of functions that are defined there, and none of them is called
    here. A script that trains without ``if __name__ == "__main__"`` would train in each process.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _send(connection: Connection, message: object) -> None:
    # Not by ``Connection.send``, which would lay each tensor into shared memory.
    connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def _serve(connection: Connection, threads: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the one that has started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Loaded before the first call comes, and before threads are set, which needs the libraries.
    import recsys.training.folds
    import recsys.training.stage1  # noqa: F401
    from recsys.core.threads import use_threads

    use_threads(threads)
    with suppress(EOFError, BrokenPipeError):
        while True:
            _send(connection, _outcome(pickle.loads(connection.recv_bytes())))


def _outcome(task: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """The result and the error of a call, one of which is None."""
    try:
        return task(), None
    except Exception as error:
        # A traceback cannot be sent; its text can.
        error.add_note(f"in a training process:\n{traceback.format_exc()}")
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return None, RuntimeError(f"{type(error).__name__}: {error}", *error.__notes__)
        return None, error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
