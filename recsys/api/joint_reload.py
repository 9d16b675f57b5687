"""All workers load a bundle, or none serves it."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from recsys.api.channel import Message
from recsys.api.worker_process import EndedError, WorkerProcess
from recsys.errors import InputError


async def load_in_all(workers: Sequence[WorkerProcess], folder: Path) -> str:
    """Have all load the bundle in ``folder``, and not serve it yet; its version.

    Workers that end meanwhile are left out.

    Raises:
        InputError: when one refuses it, when they find different ones, or when there is no worker;
            all have let go of it then.
    """
    # Nothing is left of a reload that has failed; and who answers is not stuck.
    free = [asyncio.create_task(_freed(worker)) for worker in workers]
    try:
        versions = await _loaded(folder, workers, free)
        if len(versions) != 1:
            found = " and ".join(sorted(versions))
            raise InputError(f"one bundle in {folder}", found, "reload again")
    except Exception:
        await _answers(worker.ask("drop") for worker in workers)
        raise
    finally:
        await asyncio.gather(*free, return_exceptions=True)
    return versions.pop()


async def swap_in_all(workers: Sequence[WorkerProcess]) -> None:
    """Have all serve what they have loaded."""
    await _answers(worker.ask("swap") for worker in workers)


async def _freed(worker: WorkerProcess) -> WorkerProcess:
    await worker.ask("drop")
    return worker


async def _loaded(
    folder: Path, workers: Sequence[WorkerProcess], free: Sequence[asyncio.Task[WorkerProcess]]
) -> set[str]:
    """The versions that the workers have loaded, each once its task in ``free`` is done."""
    # One alone: a bundle that is refused, or that a process does not survive, costs the others
    # nothing then.
    first = await _first_of(free)
    try:
        versions = {(await first.ask("load", folder=str(folder)))["version"]}
    except EndedError:
        found = "none that survives it"
        raise InputError(f"a worker that loads {folder}", found, "see the log") from None

    async def load(freed: asyncio.Task[WorkerProcess]) -> Message:
        return await (await freed).ask("load", folder=str(folder))

    others = [one for one, worker in zip(free, workers, strict=True) if worker is not first]
    return versions | {answer["version"] for answer in await _answers(map(load, others))}


async def _first_of(free: Sequence[asyncio.Task[WorkerProcess]]) -> WorkerProcess:
    for one in asyncio.as_completed(free):
        with suppress(EndedError):
            return await one
    raise InputError("a worker", "none; others are being started", "reload again")


async def _answers(asked: Iterable[Coroutine[Any, Any, Message]]) -> list[Message]:
    """What all answer, those left out that have ended meanwhile.

    Raises:
        InputError: the first refusal, once all have answered.
    """
    found = await asyncio.gather(*asked, return_exceptions=True)
    answers: list[Message] = []
    for one in found:
        if isinstance(one, BaseException):
            if not isinstance(one, EndedError):
                raise one
        else:
            answers.append(one)
    return answers
