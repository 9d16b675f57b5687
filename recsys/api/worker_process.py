"""A worker as the supervisor sees it: a process, and a line of messages to it."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsys.api.channel import Message, decoded, encoded, unpacked

ROOT = Path(__file__).parents[2]
# More than any bundle takes to load: a worker that does not answer for so long is stuck.
_SECONDS_TO_ANSWER = 300


class EndedError(Exception):
    """A worker has ended instead of answering."""


class WorkerProcess:
    """A started worker; make one with ``started``.

    Args:
        asked: called with what the worker asks for by itself (reloads).
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        asked: Callable[["WorkerProcess", Message], None],
    ) -> None:
        self.process = process
        self._reader, self._writer = reader, writer
        self._asked = asked
        self._answers: asyncio.Queue[Message | None] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def started(cls, asked: Callable[["WorkerProcess", Message], None]) -> "WorkerProcess":
        """Start a process.

        It is a new interpreter: a fork would take along threads' locks, and a supervisor that has
        loaded nothing cannot be harmed by what is.
        """
        ours, theirs = socket.socketpair()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with theirs:
            process = await asyncio.create_subprocess_exec(
                # -P: what lies in the working directory is not imported by accident.
                *(sys.executable, "-P", "-m", "recsys.api.worker", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": path},
                # Ctrl-C in a terminal goes to the supervisor alone, which has the workers finish.
                start_new_session=True,
            )
        return cls(process, *await asyncio.open_connection(sock=ours), asked)

    async def ask(self, do: str, **content: Any) -> Message:
        """Send a message, and wait for the answer; one at a time.

        Raises:
            InputError: that the worker answers with.
            EndedError: when it ends instead, or is killed as it does not answer.
        """
        self.tell(do, **content)
        try:
            answer = await asyncio.wait_for(self._answers.get(), _SECONDS_TO_ANSWER)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            answer = None
        if answer is None:
            self._answers.put_nowait(None)  # for whoever asks after this
            raise EndedError("one that ended")
        if answer["say"] == "refused":
            raise unpacked(answer["error"])
        return answer

    def tell(self, do: str, **content: Any) -> None:
        """Send a message; nothing happens when the worker has ended."""
        self._writer.write(encoded({"do": do, **content}))

    def signal(self, number: int) -> None:
        """Send a signal, if there still is a process."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the end; the exit status, negative for a signal."""
        status = await self.process.wait()
        await self._reading
        self._writer.close()
        return status

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                message = decoded(line)
                if message["say"] == "reload":
                    self._asked(self, message)
                else:
                    self._answers.put_nowait(message)
        self._answers.put_nowait(None)
