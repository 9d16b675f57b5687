"""What ``kill -9`` at any moment of a refresh leaves behind.

    python benchmarks/refresh_faults.py --moments 20 --seed 0

Trains a champion on a part of the bundled sample, puts the rest into an event store, and lets one
refresh come to its end. Then it starts others and kills each at a random moment, in CPU time, which
does not depend on what else the machine does: every second one with all of its processes, as a
machine does that goes down, the others alone, so that the training has to end by itself. After each
it looks whether ``latest`` names the champion (or a challenger that has won) and loads, whether
bundles are whole, whether the lock is free, and what lies about; in the end, whether a refresh
works and has cleared up. Ends with an error where something is amiss. Linux only.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.harness import PACKAGES, plain_table, present
from benchmarks.refresh_shop import QUICK, environment, open_shop, refresh_command
from benchmarks.runs import ROOT, machine
from benchmarks.servers import cpu_seconds, processes
from recsys.artifact import load_artifact
from recsys.bundle import list_bundles, make_latest, read_bundle, read_metrics
from recsys.core.locks import Lock
from recsys.errors import InputError

_ENDED = "ended before"
SECONDS_TO_END = 20.0
"""A process that was told to end on a busy machine."""
_LEAST_SHARE, _MOST_ATTEMPTS = 0.02, 2
_SECONDS_BETWEEN_LOOKS = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--moments", type=int, default=20, help="to kill at (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="after which no more kills are begun"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks/results/refresh_faults.json"
    )
    parser.add_argument("overrides", nargs="*", help="of configs/train.yaml")
    arguments = parser.parse_args()
    if arguments.moments < 1 or arguments.seed < 0:
        parser.error("--moments must be at least 1 and --seed not negative")
    try:
        with tempfile.TemporaryDirectory() as folder:
            overrides = [QUICK, *arguments.overrides]
            until = time.monotonic() + 60 * arguments.minutes
            content = measure(Path(folder), arguments.moments, arguments.seed, overrides, until)
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    present("kill -9 of a refresh", [table_of(content)], content, arguments.output)
    if content["faults"]:
        sys.exit(f"error: {'; '.join(content['faults'])}")


def measure(
    folder: Path, moments: int, seed: int, overrides: Sequence[str], until: float = float("inf")
) -> dict[str, Any]:
    """Train, kill, look.

    Args:
        until: as of ``time.monotonic``, when the last kill has to have begun.

    Raises:
        InputError: when a training or a refresh that nobody kills fails.
    """
    cache, scratch = folder / "cache", folder / "tmp"
    scratch.mkdir()
    bundles = open_shop(folder / "shop", cache, overrides)
    champion = (bundles / "latest").resolve()
    command = refresh_command(bundles, *overrides)
    total = whole_turn(command, cache)
    make_latest(champion)
    clean = size(bundles)
    rng = np.random.default_rng(seed)
    kills: list[dict[str, Any]] = []
    faults: list[str] = []
    for attempt in range(_MOST_ATTEMPTS * moments):
        if len(kills) == moments or time.monotonic() > until:
            break
        share = float(rng.uniform(_LEAST_SHARE, 1.0))
        alone = bool(attempt % 2)
        one = killed(command, cache, scratch, bundles, share * total, alone=alone)
        found = found_amiss(bundles, champion, one)
        print(f"{len(kills) + 1} of {moments}: {one}", *found, sep="; ", flush=True)
        faults += [f"at {one['seconds']:.1f} s: {fault}" for fault in found]
        if one["killed"] != _ENDED:
            kills.append({**one, "share": share})
        make_latest(champion)
    after = whole_turn(command, cache)
    left = [path.name for path in bundles.glob(".*") if path.name != ".refresh.lock"]
    names = {one.name for one in list_bundles(bundles)}
    left += [one.name for one in (bundles / "logs").iterdir() if one.name not in names]
    faults += [f"{name} is left behind" for name in left]
    return {
        "protocol": f"{len(kills)} random moments (seed {seed}) of a refresh that takes "
        f"{total:.0f} s of CPU time when it is left alone; the one after the last took "
        f"{after:.0f} s.",
        "machine": machine(PACKAGES),
        "overrides": list(overrides),
        "seconds": total,
        "seconds_after": after,
        "megabytes": {"before": clean, "after": size(bundles)},
        "kills": kills,
        "faults": faults,
    }


def whole_turn(command: Sequence[str], cache: Path) -> float:
    """Seconds of CPU time of a refresh that promotes."""
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment(cache),
            stdout=subprocess.DEVNULL,
            stderr=told,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            told.seek(0)
            raise InputError("a refresh that promotes", told.read()[-500:], "see above")
    return used.ru_utime + used.ru_stime


def killed(
    command: Sequence[str],
    cache: Path,
    scratch: Path,
    bundles: Path,
    seconds: float,
    *,
    alone: bool,
) -> dict[str, Any]:
    """Start a refresh, and kill it after so many seconds of CPU time.

    Args:
        scratch: a folder for temporary files. alone: whether its children are left alone.
    """
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**environment(cache), "TMPDIR": str(scratch)},
            stdout=subprocess.DEVNULL,
            stderr=told,
            start_new_session=True,
        )
        while not (ended := process.poll() is not None) and used(process.pid) < seconds:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        own = [] if ended else processes(process.pid)
        if not ended:
            (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
        process.wait()
        at = time.monotonic()
        while any(map(runs, own)) and time.monotonic() < at + SECONDS_TO_END:
            time.sleep(0.02)
        told.seek(0)
        lines = told.read().splitlines() or ["nothing said yet"]
    return {
        "seconds": seconds,
        "killed": _ENDED if ended else "alone" if alone else "all",
        "processes": len(own),
        "seconds_to_end": time.monotonic() - at,
        "still_running": [pid for pid in own if runs(pid)],
        "said": lines[-1].replace(f"{bundles}/", "")[:60],
        "served": (bundles / "latest").resolve().name,
        "megabytes": size(bundles),
        "temporary": len(list(scratch.iterdir())),
    }


def found_amiss(bundles: Path, champion: Path, one: Mapping[str, Any]) -> list[str]:
    """In words."""
    faults = [f"process {pid} goes on" for pid in one["still_running"]]
    served = (bundles / "latest").resolve()
    try:
        load_artifact(bundles / "latest")
        for bundle in list_bundles(bundles):
            read_bundle(bundle)
    except InputError as error:
        faults.append(str(error))
    if served != champion and read_metrics(served) is None:
        faults.append(f"{served.name} is served, and was not evaluated")
    lock = Lock(bundles / ".refresh.lock")
    if not lock.held:
        faults.append("the lock is held")
    lock.release()
    return faults


def used(pid: int) -> float:
    """CPU time of a process and its descendants; 0 where one ends meanwhile, ask again."""
    try:
        return cpu_seconds(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def runs(pid: int) -> bool:
    """Whether a process goes on; one that has ended and that nobody waits for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def size(folder: Path) -> float:
    """Megabytes of all files, of which each counts once."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def table_of(content: Mapping[str, Any]) -> Table:
    """A row per moment."""
    space = content["megabytes"]
    table = plain_table(
        f"{len(content['kills'])} kills, {len(content['faults'])} faults",
        f"beside each other: {space['before']:.0f} MB of bundles and logs before the first, "
        f"{space['after']:.0f} MB after the refresh that followed the last",
    )
    for header in ("CPU second", "killed", "processes"):
        table.add_column(header, justify="right")
    table.add_column("last line")
    for header in ("ended after s", "MB", "temporary files"):
        table.add_column(header, justify="right")
    for one in sorted(content["kills"], key=lambda kill: kill["seconds"]):
        table.add_row(
            f"{one['seconds']:.1f}",
            one["killed"],
            str(one["processes"]),
            one["said"].replace("|", "/"),
            f"{one['seconds_to_end']:.2f}",
            f"{one['megabytes']:.0f}",
            str(one["temporary"]),
        )
    return table


if __name__ == "__main__":
    main()
