"""One of several processes that answer on one port; ``recsys.api.supervisor`` starts it.

Run as ``python -m recsys.api.worker <descriptor of the channel>``.
"""

import asyncio
import contextlib
import logging
import logging.config
import os
import socket
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

from recsys.api.app import create_app
from recsys.api.channel import MAX_BYTES, Message, decoded, encoded, packed, unpacked
from recsys.api.http_server import HttpServer
from recsys.api.listener import SECONDS_TO_FINISH, listen_beside
from recsys.api.logs import log_config
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.api.server import configured, load
from recsys.api.shared_metrics import share
from recsys.api.telemetry import Telemetry
from recsys.errors import InputError
from recsys.recommender import Recommender

log = logging.getLogger(__name__)

_USAGE_ERROR = 2


class Channel:
    """The worker's end of the line to the supervisor."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._lines = self._socket.makefile("rb")
        self._sending = threading.Lock()
        self._asked: Future[None] | None = None

    def receive(self) -> Message | None:
        """The next message; None when the supervisor has gone."""
        # One that is killed while the worker writes to it resets the connection.
        with contextlib.suppress(ConnectionError):
            if line := self._lines.readline():
                return decoded(line)
        return None

    def send(self, say: str, **content: object) -> None:
        """Tell the supervisor, if it is still there: ``receive`` finds out when it is not.

        Raises:
            InputError: when it is more than the supervisor listens to.
        """
        line = encoded({"say": say, **content})
        if len(line) > MAX_BYTES:
            found = f"a bundle that has it say {len(line)}"
            raise InputError(f"a message of up to {MAX_BYTES} bytes", found, "train it again")
        with self._sending, contextlib.suppress(ConnectionError):
            self._socket.sendall(line)

    def say_alive(self) -> None:
        """Tell that the event loop runs, which it does not wait for the supervisor to hear."""
        if self._sending.acquire(blocking=False):  # else the supervisor hears something now
            try:
                with contextlib.suppress(OSError):
                    self._socket.send(encoded({"say": "alive"}), socket.MSG_DONTWAIT)
            finally:
                self._sending.release()

    async def ask_reload(self, folder: Path | None) -> None:
        """Have every worker serve the bundle in ``folder`` (None: the newest); one at a time.

        Raises:
            InputError: when one cannot: all serve what they served.
        """
        self._asked = Future()
        name = None if folder is None else str(folder)
        # The line may be full.
        await asyncio.to_thread(self.send, "reload", folder=name)
        await asyncio.wrap_future(self._asked)

    def answered(self, message: Message) -> None:
        """The supervisor's answer to ``ask_reload``."""
        error = message["error"]
        self._settle(None if error is None else unpacked(error))

    def fail(self) -> None:
        """No answer will come any more."""
        self._settle(InputError("a supervisor", "none any more", "start it again"))

    def _settle(self, error: InputError | None) -> None:
        asked = self._asked
        # Nobody may wait for it any more.
        if asked is not None and asked.set_running_or_notify_cancel():
            asked.set_result(None) if error is None else asked.set_exception(error)
        self._asked = None


class Worker:
    """Loads what it is told to, and serves once it is told to."""

    def __init__(self, channel: Channel, settings: Message) -> None:
        self.channel = channel
        share(settings["metrics"][settings["slot"]])
        options = ServingOptions(**settings["options"])
        self.models: ModelStore = load(
            Path(settings["bundle"]), settings["device"], options, Path(settings["first"])
        )
        self.models.reload_everywhere = channel.ask_reload
        self.telemetry = Telemetry(settings["metrics"])
        app = create_app(self.models, options, settings["key_digests"], self.telemetry)
        self.address: tuple[str, int] = settings["host"], settings["port"]
        self.server = HttpServer(
            configured(
                app, settings["log_level"], callback_notify=self._each_second, timeout_notify=0
            )
        )
        self._prepared: Recommender | None = None
        # Set once the worker listens, or has no reason to any more.
        self._listens = threading.Event()
        self._listener: socket.socket | None = None

    def run(self) -> None:
        """Serve from when the supervisor says so until it says, or is, no more."""
        threading.Thread(target=self._control, name="control", daemon=True).start()
        self._listens.wait()
        if self._listener is not None:
            self.server.run(sockets=[self._listener])

    def say_loaded(self, version: str) -> None:
        """Tell what is ready to be served."""
        self.channel.send("loaded", version=version, device=self.models.device)

    async def _each_second(self) -> None:
        self.channel.say_alive()
        self.telemetry.refresh()

    def _control(self) -> None:
        try:
            self._obey()
        except Exception:
            # Out of control, such as without descriptors: another worker takes this one's place.
            log.exception("a worker cannot go on")
            logging.shutdown()
            os._exit(1)

    def _obey(self) -> None:
        while (message := self.channel.receive()) is not None:
            match message["do"]:
                case "serve":
                    self._serve()
                case "load":
                    self._load(Path(message["folder"]))
                case "swap":
                    if self._prepared is not None:
                        self.models.swap(self._prepared)
                    self._prepared = None
                    self.channel.send("done")
                case "drop":
                    self._prepared = None
                    self.channel.send("done")
                case "answer":
                    self.channel.answered(message)
        self.channel.fail()
        # Requests under way are answered, as when the supervisor says so by a signal.
        self.server.should_exit = True
        self._listens.set()
        time.sleep(SECONDS_TO_FINISH + 2)
        logging.shutdown()
        os._exit(1)

    def _serve(self) -> None:
        try:
            self._listener = listen_beside(*self.address)
        except InputError as error:
            self.channel.send("refused", error=packed(error))
        else:
            self._listens.set()
            self.channel.send("done")

    def _load(self, folder: Path) -> None:
        try:
            self._prepared = self.models.prepared(folder)
            self.say_loaded(self._prepared.model_version)
        except InputError as error:
            self.channel.send("refused", error=packed(error))


def main() -> None:
    """Load, report, serve."""
    channel = Channel(int(sys.argv[1]))
    settings = channel.receive()
    if settings is None:
        return
    logging.config.dictConfig(log_config(settings["log_level"]))
    try:
        worker = Worker(channel, settings)
        worker.say_loaded(worker.models.current.model_version)
    except InputError as error:
        channel.send("refused", error=packed(error))
        sys.exit(_USAGE_ERROR)
    worker.run()


if __name__ == "__main__":
    main()
