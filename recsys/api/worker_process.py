"""A worker as the supervisor sees it: a process, and a line of messages to it."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recsys.api.channel import MAX_BYTES, Message, encoded, packed, said, unpacked
from recsys.errors import InputError

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
# More than any bundle takes to load: a worker that does not answer for so long is stuck.
_SECONDS_TO_ANSWER = 300
# A worker says each second that its event loop runs. Far more than a busy machine holds it up.
SECONDS_OF_SILENCE = 20
_SECONDS_BETWEEN_LOOKS = 1.0
# From the end of the line to the end of the process.
_SECONDS_TO_END = 15
# The supervisor asks one thing at a time.
_MAX_ANSWERS = 2


class EndedError(Exception):
    """A worker has ended instead of answering."""


class WorkerProcess:
    """A started worker; make one with ``started``.

    One that sends what is no message, or anything without end, is killed.

    Args:
        asked: called with the folder of the bundle (None: the newest) that the worker asks to have
            loaded by all; ``reply`` is owed to it.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        asked: Callable[["WorkerProcess", Path | None], None],
    ) -> None:
        self.process = process
        self._reader, self._writer = reader, writer
        self._asked = asked
        self._owes_reply = False
        self._answers: asyncio.Queue[Message | None] = asyncio.Queue()
        # Seconds since it was heard.
        self.silence, self._longest_silence = 0, _SECONDS_TO_ANSWER
        self._tasks = [asyncio.create_task(self._read())]

    @classmethod
    async def started(
        cls,
        asked: Callable[["WorkerProcess", Path | None], None],
        descriptors: Sequence[int] = (),
    ) -> "WorkerProcess":
        """Start a process.

        It is a new interpreter: a fork would take along threads' locks, and a supervisor that has
        loaded nothing cannot be harmed by what is.

        Args:
            descriptors: that the process is to have, too.

        Raises:
            OSError, RuntimeError: when there can be no process, or no descriptor, now.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    # -P: what lies in the working directory is not imported by accident.
                    *(sys.executable, "-P", "-m", "recsys.api.worker", str(theirs.fileno())),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *descriptors),
                    env=_environment(),
                    # Ctrl-C in a terminal goes to the supervisor alone, which has the workers
                    # finish.
                    start_new_session=True,
                )
            line = await asyncio.open_connection(sock=ours, limit=MAX_BYTES)
        except BaseException:
            # A process that has started after all ends when it finds nobody at the other end.
            ours.close()
            raise
        return cls(process, *line, asked)

    async def ask(self, do: str, **content: Any) -> Message:
        """Send a message, and wait for the answer; one at a time.

        Raises:
            InputError: that the worker answers with.
            EndedError: when it ends instead, or is killed as it does not answer.
        """
        self._tell(do, **content)
        try:
            answer = await asyncio.wait_for(self._answers.get(), _SECONDS_TO_ANSWER)
        except TimeoutError:
            log.error("worker process %d does not answer; ending it", self.process.pid)
            self.signal(signal.SIGKILL)
            answer = None
        if answer is None:
            self._answers.put_nowait(None)  # for whoever asks after this
            raise EndedError("one that ended")
        if answer["say"] == "refused":
            raise unpacked(answer["error"])
        return answer

    def reply(self, error: InputError | None) -> None:
        """Tell the worker what has come of the reload that it asked for."""
        self._owes_reply = False
        self._tell("answer", error=None if error is None else packed(error))

    def watch(self) -> None:
        """From now on, see that its event loop runs: wake a stopped process, kill a stuck one."""
        self._tasks.append(asyncio.create_task(self._watch()))

    def signal(self, number: int) -> None:
        """Send a signal, if there still is a process."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the end; the exit status, negative for a signal."""
        reading, exiting = self._tasks[0], asyncio.ensure_future(self.process.wait())
        await asyncio.wait({reading, exiting}, return_when=asyncio.FIRST_COMPLETED)
        # A process that has closed its line should be about to end.
        await asyncio.wait({exiting}, timeout=_SECONDS_TO_END)
        self.signal(signal.SIGKILL)
        status = await exiting
        for task in self._tasks:
            task.cancel()
        self._writer.close()
        return status

    def _tell(self, do: str, **content: Any) -> None:
        """Send a message; nothing happens when the worker has ended."""
        self._writer.write(encoded({"do": do, **content}))

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                self._take(said(line))
        except ConnectionError:
            pass
        except Exception as error:
            # A line that is too long, or no message: whatever comes after it cannot be relied on.
            log.error("worker process %d is out of control: %s", self.process.pid, error)
            self.signal(signal.SIGKILL)
        finally:
            self._answers.put_nowait(None)

    def _take(self, message: Message) -> None:
        """Raises: ValueError: when it was nobody's turn to send that."""
        self.silence = 0
        match message["say"]:
            case "alive":
                self._longest_silence = SECONDS_OF_SILENCE
            case "reload" if not self._owes_reply:
                self._owes_reply = True
                self._asked(self, None if message["folder"] is None else Path(message["folder"]))
            case "loaded" | "done" | "refused" if self._answers.qsize() < _MAX_ANSWERS:
                self._answers.put_nowait(message)
            case other:
                raise ValueError(f"a message {other!r} out of turn")

    async def _watch(self) -> None:
        # Counted rather than measured: a supervisor that was held up has not listened meanwhile.
        while self.silence < self._longest_silence:
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
            self.silence += 1
            if self.silence == self._longest_silence // 2:
                # It may just have been stopped, by a terminal or a debugger; else nothing happens.
                self.signal(signal.SIGCONT)
        log.error(
            "worker process %d has been silent for %d s; ending it",
            self.process.pid,
            self._longest_silence,
        )
        self.signal(signal.SIGKILL)


def _environment() -> dict[str, str]:
    """This process's, with what a worker needs to find its code and to read large tables fast.

    Rows of item vectors lie anywhere in hundreds of megabytes; with pages of 4 KB the processor
    looks up an address for each. The GNU C library takes larger ones where Linux has them.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", **os.environ, "PYTHONPATH": path}
