"""Several worker processes on one port: started, watched, replaced, reloaded and ended together.

The supervisor holds no model and answers no request, so that nothing but a signal ends it.
"""

import asyncio
import logging
import logging.config
import signal
import socket
import time
from collections.abc import Coroutine, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recsys.api.channel import Message
from recsys.api.joint_reload import load_in_all, swap_in_all
from recsys.api.keys import read_keys
from recsys.api.listener import SECONDS_TO_FINISH, announce, reserve
from recsys.api.logs import check_level, log_config
from recsys.api.options import DEFAULT_OPTIONS, ServingOptions
from recsys.api.reload_queue import ReloadQueue
from recsys.api.shared_metrics import MetricFiles
from recsys.api.worker_process import EndedError, WorkerProcess
from recsys.errors import InputError

log = logging.getLogger(__name__)

# A worker that lives for less is replaced after a pause that doubles each time.
_SECONDS_OF_A_STABLE_LIFE = 30.0
_LONGEST_PAUSE = 30.0


def serve(
    bundle: Path,
    *,
    host: str,
    port: int,
    device: str,
    log_level: str,
    options: ServingOptions = DEFAULT_OPTIONS,
    api_keys: Path | None = None,
) -> None:
    """``recsys.api.server.serve`` with ``options.workers`` processes.

    Raises:
        InputError: as there, and when a worker ends before it serves.
    """
    check_level(log_level)
    digests = read_keys(api_keys)
    with (
        reserve(host, port) as reserved,
        closing(MetricFiles(options.workers)) as metrics,
    ):
        settings = Settings(bundle, device, log_level, options, tuple(digests), metrics)
        asyncio.run(_until_told(Supervisor(settings, reserved)))


async def _until_told(supervisor: "Supervisor") -> None:
    """Supervise until a signal says to end; hang-ups reload."""
    told = asyncio.Event()

    def end(number: int) -> None:
        # The first has requests finish; Ctrl-C once more does not wait for them.
        if told.is_set() and number == signal.SIGINT:
            supervisor.signal(signal.SIGINT)
        told.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    loop.add_signal_handler(signal.SIGHUP, supervisor.reload_newest)
    supervising = asyncio.create_task(supervisor.run())
    telling = asyncio.create_task(told.wait())
    try:
        await asyncio.wait({supervising, telling}, return_when=asyncio.FIRST_COMPLETED)
        if supervising.done():
            supervising.result()
    finally:
        supervising.cancel()
        telling.cancel()
        await asyncio.wait({supervising, telling})
        await supervisor.end()


@dataclass(frozen=True)
class Settings:
    """What all workers are started with. See ``recsys.api.server.serve``.

    metrics: a file for each worker.
    """

    bundle: Path
    device: str
    log_level: str
    options: ServingOptions
    key_digests: Sequence[str]
    metrics: MetricFiles


@dataclass(frozen=True)
class Served:
    """The bundle that all workers serve: its folder, and the version that was found there."""

    folder: Path
    version: str


class Supervisor:
    """Keeps ``settings.options.workers`` processes serving one bundle on a reserved address."""

    def __init__(self, settings: Settings, reserved: socket.socket) -> None:
        self.settings = settings
        self.reserved = reserved
        self.served: Served | None = None
        self._processes: set[WorkerProcess] = set()
        # By slot, those that answer requests.
        self._serving: dict[int, WorkerProcess] = {}
        # Held while what is served changes, or somebody joins in serving it.
        self._changing = asyncio.Lock()
        # Each worker asks for one at a time.
        self._reloads = ReloadQueue(self._reload, max_waiting=settings.options.workers + 1)
        self._background: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Start the workers, announce them, and replace what dies.

        Raises:
            InputError: when one cannot start.
        """
        bundle, number = self.settings.bundle, self.settings.options.workers
        # All begin with the bundle that a link names now.
        first = bundle.resolve() if bundle.is_symlink() and bundle.exists() else bundle
        try:
            started = await asyncio.gather(*(self._started(slot, first) for slot in range(number)))
            # None before all can: connections would be dealt out to the first alone.
            await asyncio.gather(*(worker.ask("serve") for worker, _ in started))
        except (EndedError, OSError, RuntimeError) as error:
            raise InputError(
                f"{number} workers that start", str(error), "see what it has logged"
            ) from error
        for worker, _ in started:
            worker.watch()
        self.served = Served(first, started[0][1]["version"])
        self._serving = {slot: worker for slot, (worker, _) in enumerate(started)}
        announce(self.served.version, started[0][1]["device"], self.reserved)
        logging.config.dictConfig(log_config(self.settings.log_level))
        await asyncio.gather(*(self._keep(slot) for slot in range(number)))

    def reload_newest(self) -> None:
        """Have all serve the newest bundle; a failure is logged."""
        # Before the first is served, and where one waits already, it is about to be looked for.
        if self.served is not None and not self._reloads.waits(None):
            self._in_background(self._reload_logged(self._reloads.ask(None)))

    def signal(self, number: int) -> None:
        """Send a signal to all workers."""
        for worker in self._processes:
            worker.signal(number)

    async def end(self) -> None:
        """Have the workers finish what they have accepted, and end them."""
        self.signal(signal.SIGTERM)
        ends = [asyncio.create_task(worker.ended()) for worker in self._processes]
        if ends:
            await asyncio.wait(ends, timeout=SECONDS_TO_FINISH + 5)
        self.signal(signal.SIGKILL)
        if ends:
            await asyncio.wait(ends, timeout=SECONDS_TO_FINISH)

    async def _started(self, slot: int, first: Path) -> tuple[WorkerProcess, Message]:
        """A worker that has loaded the bundle ``first``, and what it says of it.

        Raises:
            InputError: that the worker ended with. EndedError: when it ended without a word.
            OSError, RuntimeError: when no process can be started now.
        """
        settings, (host, port) = self.settings, self.reserved.getsockname()[:2]
        worker = await WorkerProcess.started(self._asked, settings.metrics.descriptors)
        self._processes.add(worker)
        try:
            loaded = await worker.ask(
                "start",
                slot=slot,
                bundle=str(settings.bundle),
                first=str(first),
                device=settings.device,
                log_level=settings.log_level,
                options=asdict(settings.options),
                key_digests=settings.key_digests,
                metrics=settings.metrics.paths,
                host=host,
                port=port,
            )
        except (InputError, EndedError) as error:
            status = await worker.ended()
            self._processes.discard(worker)
            if isinstance(error, EndedError):
                raise EndedError(f"one that ended with status {status}") from None
            raise
        return worker, loaded

    async def _keep(self, slot: int) -> None:
        """Put another worker in the place of one that has ended, as long as the server runs."""
        pause = 0.0
        while True:
            worker, since = self._serving[slot], time.monotonic()
            status = await worker.ended()
            self._processes.discard(worker)
            del self._serving[slot]
            if time.monotonic() - since > _SECONDS_OF_A_STABLE_LIFE:
                pause = 0.0
            log.error("worker %d ended with status %d; starting another", slot, status)
            while slot not in self._serving:
                await asyncio.sleep(pause)
                pause = min(max(1.0, 2 * pause), _LONGEST_PAUSE)
                try:
                    self.settings.metrics.forget(slot)
                    await self._replace(slot)
                except Exception as error:
                    # Also for want of descriptors, processes or memory: others answer meanwhile.
                    why = str(error) or repr(error)
                    log.error("worker %d does not start; again in %g s: %s", slot, pause, why)

    async def _replace(self, slot: int) -> None:
        """Raises: as ``_started`` does."""
        assert self.served is not None
        folder = self.served.folder
        worker, loaded = await self._started(slot, folder)
        async with self._changing:
            try:
                if folder != self.served.folder:
                    # There was a reload while it loaded.
                    folder = self.served.folder
                    loaded = await worker.ask("load", folder=str(folder))
                    await worker.ask("swap")
                await worker.ask("serve")
                worker.watch()
            except BaseException:
                worker.signal(signal.SIGKILL)
                await worker.ended()
                self._processes.discard(worker)
                raise
            self._serving[slot] = worker
        if loaded["version"] != self.served.version:
            log.warning("%s was replaced in its folder; all load it", self.served.version)
            self._in_background(self._reload_logged(self._reloads.ask(folder)))

    async def _reload(self, folder: Path | None) -> Served:
        """Have all workers serve the bundle in ``folder`` (None: the newest), or none.

        Raises:
            InputError: when one refuses it; all go on with what they serve then.
        """
        async with self._changing:
            if folder is None:
                folder = self.settings.bundle.resolve()
            workers = list(self._serving.values())
            version = await load_in_all(workers, folder)
            await swap_in_all(workers)
            self.served = Served(folder, version)
            return self.served

    async def _reload_logged(self, reload: "asyncio.Future[Served]") -> None:
        assert self.served is not None
        try:
            served = await reload
        except InputError as error:
            log.error("reload refused, %s goes on: %s", self.served.version, error)
        else:
            log.warning("serving %s from now on", served.version)

    def _asked(self, worker: WorkerProcess, folder: Path | None) -> None:
        """A worker was asked to reload."""

        async def answer() -> None:
            try:
                await self._reloads.ask(folder)
            except InputError as error:
                worker.reply(error)
            except Exception as error:
                log.exception("a reload failed")
                worker.reply(InputError("a reload", repr(error), "see the log"))
            else:
                worker.reply(None)

        self._in_background(answer())

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception:
                log.exception("a reload failed")

        task = asyncio.create_task(guarded())
        # The event loop itself keeps no reference that would keep a task alive.
        self._background.add(task)
        task.add_done_callback(self._background.discard)
