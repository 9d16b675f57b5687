"""How soon a server is ready, and whether its memory stays where it is under load.

    python benchmarks/soak.py --bundle checkpoints/latest

Starts the server, drives it with wrk at 16 connections over random users for ten minutes, and reads
the resident memory of each of its processes once a second. The first minute fills caches and does
not count. Ends with an error where a process' memory strays by more than 3% from its mean. Needs
wrk (Debian: apt install wrk).
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import statistics
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.harness import plain_table, present
from benchmarks.runs import ROOT, machine
from benchmarks.servers import drive, need_wrk, processes, serving, write_users
from recsys.artifact import load_artifact
from recsys.errors import InputError

CONNECTIONS = 16
TOLERANCE = 0.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--bundle", type=Path, default=ROOT / "checkpoints" / "latest")
    parser.add_argument("--minutes", type=float, default=10.0, help="of load (default 10)")
    parser.add_argument("--warm-up", type=int, default=60, help="seconds before (default 60)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/soak.json")
    parser.add_argument("overrides", nargs="*", help="of configs/serve.yaml, e.g. workers=1")
    arguments = parser.parse_args()
    if arguments.minutes <= 0 or arguments.warm_up < 1:
        parser.error("--minutes and --warm-up must be more than 0")
    try:
        content = measure(arguments)
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    present("Soak", [table_of(content)], content, arguments.output)
    strayed = [one["pid"] for one in content["processes"] if one["strays"] > TOLERANCE]
    if strayed:
        sys.exit(f"error: memory of {strayed} strays by more than {TOLERANCE:.0%}")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start, drive, watch.

    Raises:
        InputError: when wrk or the bundle is missing, or the server does not start.
    """
    need_wrk()
    artifact = load_artifact(arguments.bundle)
    command = ["serve.py", f"bundle={arguments.bundle}", "log_level=warning", "port={port}"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        users = write_users(artifact.users.ids.tolist(), folder, "users")
        server = stack.enter_context(serving([*command, *arguments.overrides], "/health/ready"))
        drive(server, users, CONNECTIONS, arguments.warm_up)
        samples: dict[int, list[int]] = {pid: [] for pid in processes(server.pid)}
        finished = threading.Event()
        watcher = threading.Thread(target=watch, args=(samples, finished))
        watcher.start()
        try:
            figures = drive(server, users, CONNECTIONS, round(60 * arguments.minutes))
        finally:
            finished.set()
            watcher.join()
    return {
        "protocol": f"{artifact.version}; {CONNECTIONS} connections for {arguments.minutes:g} "
        f"minutes after {arguments.warm_up} s.",
        "machine": machine(("torch", "onnxruntime", "uvicorn")),
        "overrides": list(arguments.overrides),
        "seconds_to_ready": server.seconds,
        "requests": figures["requests"],
        "bad": figures["bad"],
        "processes": [summary(pid, taken) for pid, taken in samples.items()],
    }


def resident_kb(pid: int) -> int:
    """Resident memory in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def watch(samples: Mapping[int, list[int]], finished: threading.Event) -> None:
    """Read each process' memory once a second until told to end."""
    while not finished.wait(1.0):
        for pid, taken in samples.items():
            taken.append(resident_kb(pid))


def summary(pid: int, samples: Sequence[int]) -> dict[str, Any]:
    """Lowest, mean and highest MiB, and the largest distance from the mean as a share of it."""
    mean = statistics.fmean(samples)
    return {
        "pid": pid,
        "lowest_mib": min(samples) / 1024,
        "mean_mib": mean / 1024,
        "highest_mib": max(samples) / 1024,
        "strays": max(max(samples) - mean, mean - min(samples)) / mean,
    }


def table_of(content: Mapping[str, Any]) -> Table:
    """A row per process."""
    table = plain_table(
        f"ready after {content['seconds_to_ready']:.1f} s; {content['requests']:,} requests, "
        f"{content['bad']} not 2xx",
        "resident memory in MiB",
    )
    table.add_column("process")
    for header in ("lowest", "mean", "highest", "strays by"):
        table.add_column(header, justify="right")
    for number, one in enumerate(content["processes"], 1):
        values = (f"{one[key]:.0f}" for key in ("lowest_mib", "mean_mib", "highest_mib"))
        table.add_row(str(number), *values, f"{one['strays']:.1%}")
    return table


if __name__ == "__main__":
    main()
