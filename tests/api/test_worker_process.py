"""Workers out of order, as the supervisor sees them: none does any harm, each is ended."""

import asyncio
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from recsys.api import worker_process
from recsys.api.channel import MAX_BYTES
from recsys.api.worker_process import EndedError, WorkerProcess
from recsys.errors import InputError

BEGIN = (
    "import socket, sys, time; line = socket.socket(fileno=int(sys.argv[1])); send = line.sendall\n"
)
ALIVE = 'send(b\'{"say": "alive"}\\n\')\n'


@asynccontextmanager
async def worker(code: str, asked: list[Path | None] | None = None) -> AsyncIterator[WorkerProcess]:
    """One that runs ``code``, at whose hand are ``send`` and the ``line``."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", BEGIN + code, str(theirs.fileno())), pass_fds=(theirs.fileno(),)
        )
    reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_BYTES)
    told = [] if asked is None else asked
    started = WorkerProcess(process, reader, writer, lambda _, folder: told.append(folder))
    try:
        yield started
    finally:
        started.signal(signal.SIGKILL)
        await started.ended()


@pytest.mark.parametrize(
    "code",
    [
        "send(b'Fatal error\\n'); time.sleep(60)",
        "send(b'{}\\n'); time.sleep(60)",
        "while True: send(b'x' * 65536)",
        'while True: send(b\'{"say": "done"}\\n\')',
        'while True: send(b\'{"say": "reload", "folder": null}\\n\')',
    ],
)
def test_one_out_of_control_is_killed(code: str) -> None:
    async def status() -> int:
        async with worker(code) as one, asyncio.timeout(30):
            return await one.ended()

    assert asyncio.run(status()) == -signal.SIGKILL


def test_who_asks_one_that_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(code: str) -> None:
        async with worker(code) as one, asyncio.timeout(30):
            for _ in range(2):
                with pytest.raises(EndedError):
                    await one.ask("load", folder="/bundles/a")

    asyncio.run(ask("line.recv(9)"))
    asyncio.run(ask("line.recv(9); send(b'nonsense\\n'); time.sleep(60)"))
    monkeypatch.setattr(worker_process, "_SECONDS_TO_ANSWER", 1)
    asyncio.run(ask("time.sleep(60)"))


def test_answers_and_reloads_are_told_apart() -> None:
    code = (
        'line.recv(999); send(b\'{"say": "reload", "folder": "/a"}\\n\')\n'
        'send(b\'{"say": "refused", "error": ["a", "b", "c"]}\\n\')\n'
        "print(line.recv(999)); time.sleep(60)"
    )
    asked: list[Path | None] = []

    async def ask() -> None:
        async with worker(code, asked) as one, asyncio.timeout(30):
            with pytest.raises(InputError, match="expected a; found b; c"):
                await one.ask("load", folder="/bundles/a")
            one.reply(None)

    asyncio.run(ask())
    assert asked == [Path("/a")]


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight looks without a word, instead of twenty."""
    monkeypatch.setattr(worker_process, "SECONDS_OF_SILENCE", 8)


def test_a_stuck_one_is_killed(short_silence: None) -> None:
    async def status() -> int:
        async with worker(f"{ALIVE}time.sleep(60)") as one, asyncio.timeout(60):
            one.watch()
            return await one.ended()

    assert asyncio.run(status()) == -signal.SIGKILL


def test_a_stopped_one_goes_on_and_one_that_is_heard_is_left_alone(short_silence: None) -> None:
    async def status() -> None:
        async with worker(f"while True:\n {ALIVE} time.sleep(0.2)") as one, asyncio.timeout(60):
            one.watch()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(one.ended(), 3)
            one.signal(signal.SIGSTOP)
            while one.silence < 3:
                await asyncio.sleep(0.1)
            while one.silence > 1:
                await asyncio.sleep(0.1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(one.ended(), 3)

    asyncio.run(status())


def test_one_that_has_not_begun_may_take_longer(short_silence: None) -> None:
    async def status() -> None:
        async with worker("time.sleep(60)") as one:
            one.watch()
            await asyncio.wait_for(one.ended(), 10)

    with pytest.raises(TimeoutError):
        asyncio.run(status())


def test_a_supervisor_that_was_held_up_blames_nobody(short_silence: None) -> None:
    async def status() -> None:
        async with worker(f"while True:\n {ALIVE} time.sleep(0.2)") as one:
            one.watch()
            await asyncio.sleep(1)
            time.sleep(10)  # such as a machine that was suspended
            await asyncio.wait_for(one.ended(), 3)

    with pytest.raises(TimeoutError):
        asyncio.run(status())
