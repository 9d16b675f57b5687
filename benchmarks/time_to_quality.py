"""How long training takes until its lists are good enough, commit by commit.

    python benchmarks/time_to_quality.py --note "folds side by side"

Runs ``train.py stage=all`` with nothing from earlier runs, text vectors included, and adds a row to
the board: wall seconds, CPU seconds of all processes, the largest process's memory, and the served
lists' figures. A row that misses the targets says so.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import datetime
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.harness import plain_table, present
from benchmarks.runs import ROOT, machine

TARGETS = {"ndcg@10": 0.337, "recall@100": 0.757}
"""Of stage 2 on MovieLens-100K's ua split."""
BOARD = ROOT / "benchmarks/results/time_to_quality.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--note", default="", help="what moved the figures, for the board")
    parser.add_argument("--output", type=Path, default=BOARD)
    parser.add_argument("overrides", nargs="*", help="of configs/train.yaml, e.g. seed=1")
    arguments = parser.parse_args()
    try:
        row = measure(arguments.overrides) | {"note": arguments.note}
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: training ended with status {error.returncode}")
    rows = [*known_rows(arguments.output), row]
    content = {
        "protocol": "`train.py stage=all` from nothing, MovieLens-100K, split ua; targets: "
        + ", ".join(f"{name} of {value}" for name, value in TARGETS.items())
        + " by stage 2. Another load of the machine makes other seconds.",
        "machine": machine(("torch", "pytorch-lightning", "scipy")),
        "overrides": list(arguments.overrides),
        "rows": rows,
    }
    present("Time to quality", [board(rows)], content, arguments.output)


def measure(overrides: Sequence[str]) -> dict[str, Any]:
    """Train once, in a process of its own.

    Raises:
        subprocess.CalledProcessError: when it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = [f"output_dir={folder}", "name=timed", *overrides]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "train.py", "stage=all", *options]
        subprocess.run(command, check=True, cwd=ROOT)
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        (metrics_file,) = Path(folder).glob("timed*/metrics.json")
        metrics = json.loads(metrics_file.read_text())["stage2"]
    peak = after.ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": machine(())["commit"],
        "seconds": seconds,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_gb": peak,
        "metrics": {name: metrics[name] for name in TARGETS},
    }


def known_rows(file: Path) -> list[dict[str, Any]]:
    """Of the board as it is."""
    if not file.is_file():
        return []
    rows: list[dict[str, Any]] = json.loads(file.read_text())["rows"]
    return rows


def board(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row per run, the first one first."""
    caption = "wall and CPU seconds of `train.py stage=all`; memory of the largest process"
    table = plain_table("Time to quality", caption)
    for column in (
        "date",
        "commit",
        "seconds",
        "CPU s",
        "GB",
        *TARGETS,
        "reached",
        "what moved it",
    ):
        table.add_column(column)
    for row in rows:
        reached = all(row["metrics"][name] >= value for name, value in TARGETS.items())
        table.add_row(
            row["date"],
            row["commit"],
            f"{row['seconds']:.0f}",
            f"{row['cpu_seconds']:.0f}",
            f"{row['peak_gb']:.1f}",
            *(f"{row['metrics'][name]:.4f}" for name in TARGETS),
            "yes" if reached else "no",
            row["note"],
        )
    return table


if __name__ == "__main__":
    main()
