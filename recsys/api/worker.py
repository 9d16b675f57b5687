"""One of several processes that answer on one port; ``recsys.api.supervisor`` starts it.

Run as ``python -m recsys.api.worker <descriptor of the channel>``.
"""

import contextlib
import itertools
import logging
import logging.config
import os
import shutil
import socket
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

from recsys.api.app import create_app
from recsys.api.channel import Message, decoded, encoded, packed, unpacked
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
from recsys.shared_tensors import share_in

log = logging.getLogger(__name__)

_USAGE_ERROR = 2


class Channel:
    """The worker's end of the line to the supervisor."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._lines = self._socket.makefile("rb")
        self._sending = threading.Lock()
        self._numbers = itertools.count()
        self._asked: dict[int, Future[None]] = {}

    def receive(self) -> Message | None:
        """The next message; None when the supervisor has gone."""
        # One that is killed while the worker writes to it resets the connection.
        with contextlib.suppress(ConnectionError):
            if line := self._lines.readline():
                return decoded(line)
        return None

    def send(self, say: str, **content: object) -> None:
        """Tell the supervisor, if it is still there: ``receive`` finds out when it is not."""
        with self._sending, contextlib.suppress(ConnectionError):
            self._socket.sendall(encoded({"say": say, **content}))

    def ask_reload(self, folder: Path) -> None:
        """Have every worker serve the bundle in ``folder``; wait until all do.

        Raises:
            InputError: when one cannot: all serve what they served.
        """
        number, answer = next(self._numbers), Future[None]()
        self._asked[number] = answer
        self.send("reload", number=number, folder=str(folder))
        answer.result()

    def answered(self, message: Message) -> None:
        """The supervisor's answer to ``ask_reload``."""
        answer = self._asked.pop(message["number"])
        if "error" in message:
            answer.set_exception(unpacked(message["error"]))
        else:
            answer.set_result(None)

    def fail(self) -> None:
        """No answer will come any more."""
        for answer in self._asked.values():
            answer.set_exception(InputError("a supervisor", "none any more", "start it again"))


class Worker:
    """Loads what it is told to, and serves once it is told to."""

    def __init__(self, channel: Channel, settings: Message) -> None:
        self.channel = channel
        self.shared_folder = Path(settings["shared_folder"])
        share(self.shared_folder, settings["slot"])
        share_in(self.shared_folder)
        options = ServingOptions(**settings["options"])
        self.models: ModelStore = load(
            Path(settings["bundle"]), settings["device"], options, Path(settings["first"])
        )
        self.models.reload_everywhere = channel.ask_reload
        self.telemetry = Telemetry(self.shared_folder)
        app = create_app(self.models, options, settings["key_digests"], self.telemetry)
        self.address: tuple[str, int] = settings["host"], settings["port"]
        self.server = HttpServer(
            configured(
                app, settings["log_level"], callback_notify=self._refresh_metrics, timeout_notify=0
            )
        )
        self._prepared: Recommender | None = None
        # Set once the worker listens, or has no reason to any more.
        self._listens = threading.Event()
        self._listener: socket.socket | None = None
        self._orphaned = False

    def run(self) -> None:
        """Serve from when the supervisor says so until it says, or is, no more."""
        threading.Thread(target=self._control, name="control", daemon=True).start()
        self._listens.wait()
        if self._listener is not None:
            self.server.run(sockets=[self._listener])
        if self._orphaned:
            # Nobody else is left to do it.
            shutil.rmtree(self.shared_folder, ignore_errors=True)

    async def _refresh_metrics(self) -> None:
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
        self._orphaned = self.server.should_exit = True
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
        except InputError as error:
            self.channel.send("refused", error=packed(error))
        except Exception as error:
            # Such as out of memory: the supervisor waits for an answer, and the old model goes on.
            log.exception("a bundle could not be loaded")
            refusal = InputError(f"to load {folder}", repr(error), "see the log")
            self.channel.send("refused", error=packed(refusal))
        else:
            self.channel.send("loaded", version=self._prepared.model_version)


def main() -> None:
    """Load, report, serve."""
    channel = Channel(int(sys.argv[1]))
    settings = channel.receive()
    if settings is None:
        return
    logging.config.dictConfig(log_config(settings["log_level"]))
    try:
        worker = Worker(channel, settings)
    except InputError as error:
        channel.send("refused", error=packed(error))
        sys.exit(_USAGE_ERROR)
    version, device = worker.models.current.model_version, worker.models.device
    channel.send("loaded", version=version, device=device)
    worker.run()


if __name__ == "__main__":
    main()
