"""The whole comparison with one command: both stages against baselines, several splits and seeds.

    python benchmarks/quality.py

Every (protocol, seed) is trained and evaluated in a process of its own. Finished ones are kept in
``--runs`` and not run again unless code or configuration changed, so an interrupted benchmark goes
on where it stopped. No held-out row is handed to training: ``quality_unit`` sees to that.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.quality_tables import Unit, markdown
from benchmarks.quality_unit import measure
from recsys.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
PROTOCOLS = {
    "ua": (5, ["data=ml100k", "data.split=ua"]),
    "random": (3, ["data=ml100k", "data.split=random", "data.split_seed={seed}"]),
    "global_time": (3, ["data=ml100k", "data.split=global_time"]),
}
"""Protocol -> how many seeds, and its overrides."""


def overrides_of(protocol: str, seed: int, extra: Sequence[str]) -> list[str]:
    """The overrides of one unit."""
    return [*(text.format(seed=seed) for text in PROTOCOLS[protocol][1]), *extra]


def fingerprint(overrides: Sequence[str]) -> str:
    """Changes with the overrides and with any file that a result depends on."""
    digest = hashlib.sha256("\n".join(overrides).encode())
    for pattern in (
        "recsys/**/*.py",
        "configs/**/*.yaml",
        "train.py",
        "benchmarks/quality_unit.py",
    ):
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def run_unit(protocol: str, seed: int, extra: Sequence[str], runs: Path) -> Unit:
    """The result of one unit, from disk or from a new process.

    Raises:
        InputError: when the process fails; its last lines are in the message.
    """
    overrides = overrides_of(protocol, seed, extra)
    folder = runs / f"{protocol}-{seed}-{fingerprint(overrides)}"
    if not (folder / "result.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [sys.executable, __file__, "--unit", str(folder), "--seed", str(seed), *overrides]
        with (folder / "log.txt").open("w") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
        if code:
            tail = (folder / "log.txt").read_text().strip().splitlines()[-1:]
            raise InputError(f"{protocol}, seed {seed}, to finish", " ".join(tail), f"see {folder}")
        shutil.rmtree(folder / "fit", ignore_errors=True)
    return Unit.load(folder)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.split(":", 1)[1].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else [])
        if line.startswith("model name")
    ]
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True)
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "commit": commit.stdout.strip()[:12] + (" (changed)" if dirty.stdout.strip() else ""),
        "versions": {
            name: version(name) for name in ("torch", "faiss-cpu", "lightgbm", "implicit")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--seeds", type=int, help="of each protocol (default 5 of ua, 3 of others)")
    parser.add_argument("--runs", type=Path, default=ROOT / "checkpoints" / "quality")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/quality.md")
    parser.add_argument("--set", nargs="+", default=[], dest="extra", metavar="OVERRIDE")
    parser.add_argument("--unit", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("recsys").setLevel(logging.INFO)
    try:
        if arguments.unit is not None:
            measure(arguments.overrides, arguments.seed, arguments.unit)
            return
        run_all(arguments)
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


def run_all(arguments: argparse.Namespace) -> None:
    """Run what is missing, and write the tables."""
    wanted = [
        (protocol, seed)
        for protocol in arguments.protocols
        for seed in range(arguments.seeds or PROTOCOLS[protocol][0])
    ]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    units: dict[str, list[Unit]] = {}
    with Progress(*columns, TimeElapsedColumn()) as progress:
        task = progress.add_task("", total=len(wanted))
        for protocol, seed in wanted:
            progress.update(task, description=f"{protocol}, seed {seed}")
            unit = run_unit(protocol, seed, arguments.extra, arguments.runs)
            units.setdefault(protocol, []).append(unit)
            progress.advance(task)
    text, content = markdown(units, machine())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text)
    arguments.output.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n")
    print(text)
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
