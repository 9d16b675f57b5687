"""The whole comparison with one command: both stages against baselines, several splits and seeds.

    python benchmarks/quality.py

Every (protocol, seed) is trained and evaluated in a process of its own. Finished ones are kept in
``--runs`` and not run again unless code or configuration changed, so an interrupted benchmark goes
on where it stopped. No held-out row is handed to training: ``quality_unit`` sees to that.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.quality_tables import Unit, markdown
from benchmarks.quality_unit import measure
from benchmarks.runs import ROOT, machine, run_once
from recsys.errors import InputError

CODE = ("benchmarks/quality_unit.py", "benchmarks/lambdamart.py", "benchmarks/harness.py")
"""What a result depends on beside the product."""
PACKAGES = ("torch", "faiss-cpu", "lightgbm", "implicit")
PROTOCOLS = {
    "ua": (5, ["data=ml100k", "data.split=ua"]),
    "random": (3, ["data=ml100k", "data.split=random", "data.split_seed={seed}"]),
    "global_time": (3, ["data=ml100k", "data.split=global_time"]),
}
"""Protocol -> how many seeds, and its overrides."""


def overrides_of(protocol: str, seed: int, extra: Sequence[str]) -> list[str]:
    """The overrides of one unit."""
    return [*(text.format(seed=seed) for text in PROTOCOLS[protocol][1]), *extra]


def run_unit(protocol: str, seed: int, extra: Sequence[str], runs: Path) -> Unit:
    """The result of one unit, from disk or from a new process.

    Raises:
        InputError: when the process fails; its last line is in the message.
    """
    arguments = ["--seed", str(seed), *overrides_of(protocol, seed, extra)]
    return Unit.load(run_once(f"{protocol}-{seed}", __file__, arguments, CODE, runs))


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
    text, content = markdown(units, machine(PACKAGES))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text)
    arguments.output.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n")
    print(text)
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
