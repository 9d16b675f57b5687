"""``serve.py`` with two workers as processes, and what the kernel knows of their connections."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
# States of a socket in /proc/net/tcp.
CONNECTED, LISTENS = "01", "0A"


@dataclass
class Server:
    """A running supervisor, and where its workers answer."""

    process: subprocess.Popen[str]
    address: str
    errors: Path
    connections: list[HTTPConnection] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.address.split(":")[1])

    def workers(self) -> set[int]:
        return children(self.process.pid)

    def connect(self) -> HTTPConnection:
        connection = HTTPConnection(self.address, timeout=20)
        connection.connect()
        self.connections.append(connection)
        return connection

    def to_each_worker(self) -> dict[int, HTTPConnection]:
        """A connection to each worker, by its process id."""
        found: dict[int, HTTPConnection] = {}
        while len(found) < 2:
            connection = self.connect()
            get(connection, "/health/live")  # taken in
            found.setdefault(self.owner(connection), connection)
        return found

    def owner(self, connection: HTTPConnection) -> int:
        """The worker at the other end."""
        own = connection.sock.getsockname()[1]
        while True:  # the kernel's list is not of one moment, and may lack a row
            inodes = {one.inode for one in tcp(self.port) if one.peer == own}
            for worker in self.workers():
                if inodes & open_sockets(worker):
                    return worker

    def metric(self, name: str) -> float:
        with self.fresh() as connection:
            return metric(connection, name)

    def serves_with_two(self) -> bool:
        """Whether two workers listen, and say that they serve.

        What they say is not enough: the word of one that has died stands until the supervisor has
        seen its end, and a new one says it before it listens.
        """
        listening = {one.inode for one in tcp(self.port, LISTENS)}
        return (
            sum(bool(listening & open_sockets(worker)) for worker in self.workers()) == 2
            and self.metric("recsys_model_info") == 2
        )

    def version(self) -> str:
        with self.fresh() as connection:
            return get(connection, "/health/ready")[1]["model_version"]

    def reload(self, name: str | None) -> tuple[int, dict]:
        with self.fresh() as connection:
            body = json.dumps({"name": name}) if name else None
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/admin/reload", body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def kill_one(self) -> None:
        victim = min(self.workers())
        os.kill(victim, signal.SIGKILL)
        # Gone from the list, and not only dead: with its last thread its sockets are closed.
        until(lambda: victim not in self.workers())

    @contextmanager
    def fresh(self) -> Iterator[HTTPConnection]:
        connection = HTTPConnection(self.address, timeout=60)
        try:
            yield connection
        finally:
            connection.close()


@dataclass(frozen=True)
class Tcp:
    """A connection at the server's end. peer: the client's port. unread: bytes."""

    peer: int
    inode: str
    unread: int


def tcp(port: int, state: str = CONNECTED) -> list[Tcp]:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [
        Tcp(int(row[2].split(":")[1], 16), row[9], int(row[4].split(":")[1], 16))
        for row in rows
        if row[3] == state and int(row[1].split(":")[1], 16) == port
    ]


def listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:  # the process has ended
        return []


def open_sockets(pid: int) -> set[str]:
    found = set()
    for number in listed(Path(f"/proc/{pid}/fd")):
        try:
            name = str(number.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
        if name.startswith("socket:["):
            found.add(name[8:-1])
    return found


def children(pid: int) -> set[int]:
    return {int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.05)


def get(connection: HTTPConnection, path: str) -> tuple[int, dict]:
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def metric(connection: HTTPConnection, name: str) -> float:
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


@contextmanager
def serving(bundle: Path, temporary: Path, *options: str) -> Iterator[Server]:
    temporary.mkdir()
    errors = temporary.with_suffix(".log")
    settings = [f"bundle={bundle}", "port=0", "device=cpu", "log_level=warning", "workers=2"]
    command = [sys.executable, "serve.py", *settings, *options]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with (
        errors.open("w") as log,
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as process,
    ):
        line = process.stdout.readline()
        assert line.startswith("Serving "), errors.read_text()
        address = urlsplit(line.split(" (API: ")[0].split(": ")[1]).netloc
        server = Server(process, address, errors)
        try:
            yield server
        finally:
            for connection in server.connections:
                connection.close()
            process.terminate()
