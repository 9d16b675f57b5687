"""A PostgreSQL server of the tests' own, from Debian's programs."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

_USER = "postgres"


def programs() -> Path | None:
    """The folder of the newest version's programs; None where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class Cluster:
    """A database cluster in ``folder``, reached by TCP on this machine alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        folder.mkdir(mode=0o700)
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(folder, _USER, _USER)
            for parent in folder.parents:
                if parent.stat().st_uid == 0 and parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o011)
        self._run("initdb", "-D", str(folder), "-U", "tester", "-A", "trust", "-E", "UTF8", "-N")

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
        """By its process id, if it runs."""
        file = self.folder / "postmaster.pid"
        if not file.exists():
            return
        os.kill(int(file.read_text().splitlines()[0]), signal.SIGINT)
        until = time.monotonic() + 30
        while file.exists() and time.monotonic() < until:
            time.sleep(0.05)

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
