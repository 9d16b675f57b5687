"""A PostgreSQL server of the tests' own, from Debian's programs."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

_USER = "postgres"


def programs() -> Path | None:
    """The folder of the newest version's programs; None where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class Cluster:
    """A database cluster, reached by TCP on this machine alone."""

    def __init__(self) -> None:
        # Not one of pytest's folders, whose parent each session closes to other users.
        self.folder = Path(tempfile.mkdtemp(prefix="recsys-postgres-"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(self.folder, _USER, _USER)
        self._run(
            "initdb", "-D", str(self.folder), "-U", "tester", "-A", "trust", "-E", "UTF8", "-N"
        )

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://tester@127.0.0.1:{self.port}/postgres"

    def create_database(self, name: str) -> str:
        """The URL of a new one."""
        self._run(
            *("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tester", "-d", "postgres"),
            *("-c", f"CREATE DATABASE {name}"),
        )
        return f"postgresql+asyncpg://tester@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.folder), "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        """At once, as by a crash."""
        self._run("pg_ctl", "-D", str(self.folder), "-m", "immediate", "-w", "stop")

    def end(self) -> None:
        """By its process id, if it runs; the folder goes, too."""
        file = self.folder / "postmaster.pid"
        if file.exists():
            os.kill(int(file.read_text().splitlines()[0]), signal.SIGINT)
            until = time.monotonic() + 30
            while file.exists() and time.monotonic() < until:
                time.sleep(0.05)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        folder = programs()
        assert folder is not None
        command = [str(folder / program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", _USER, "--", *command]
        done = subprocess.run(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # A pipe would be held open by the server that is started.
            stderr=subprocess.DEVNULL,
            timeout=60,
        )
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}"
