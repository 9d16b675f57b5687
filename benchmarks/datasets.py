"""One command over all public data sets: the product's defaults against tuned baselines.

    python benchmarks/datasets.py --sets ../shared/data/sets
    python benchmarks/datasets.py --only steam,office --protocols random,leave_last

Nothing is downloaded: a set whose files are not there is passed over, and said so. Every (set,
protocol, seed) is trained and evaluated in a process of its own. Finished ones are kept in
``--runs``, so that an interrupted benchmark goes on where it stopped; the page is written anew
after each. Training and the search of the baselines' settings are handed no held-out row.
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

from benchmarks.datasets_page import page
from benchmarks.datasets_registry import SETS
from benchmarks.datasets_tables import contents, markdown
from benchmarks.datasets_unit import Wanted, measure
from benchmarks.peers.merged import PEERS, with_peers
from benchmarks.quality_tables import Unit
from benchmarks.runs import ROOT, machine, run_once
from recsys.errors import InputError

CODE = (
    "benchmarks/datasets_unit.py",
    "benchmarks/datasets_registry.py",
    "benchmarks/lambdamart.py",
    "benchmarks/training.py",
    "benchmarks/harness.py",
)
"""What a result depends on beside the product."""
PACKAGES = ("torch", "faiss-cpu", "implicit")
PROTOCOLS = sorted({protocol for public in SETS.values() for protocol in public.protocols})


def run_unit(wanted: Wanted, runs: Path) -> Unit:
    """The result of one unit, from disk or from a new process.

    Raises:
        InputError: when the process fails; its last line is in the message.
    """
    arguments = ["--only", wanted.name, "--protocols", wanted.protocol, "--seed", str(wanted.seed)]
    arguments += ["--sets", str(wanted.folder.parent), *(["--small"] if wanted.small else [])]
    arguments += [] if wanted.stage2 else ["--no-stage2"]
    arguments += ["--lambdamart"] if wanted.lambdamart else []
    arguments += ["--set", *wanted.extra] if wanted.extra else []
    return Unit.load(run_once(wanted.title, __file__, arguments, CODE, runs))


def main() -> None:
    arguments = parse()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("recsys").setLevel(logging.INFO)
    try:
        if arguments.unit is not None:
            (name,), (protocol,) = arguments.only, arguments.protocols
            folder = arguments.sets / name
            options = _options(arguments)
            measure(Wanted(name, protocol, arguments.seed, folder, *options), arguments.unit)
            return
        run_all(arguments)
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    add_sets(parser)
    parser.add_argument(
        "--stage2",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="train and measure stage 2, too",
    )
    parser.add_argument(
        "--lambdamart",
        action="store_true",
        help="train LightGBM's trees on stage 2's lists, too, which takes longer than all else",
    )
    parser.add_argument("--small", action="store_true", help="in seconds, to see that it works")
    parser.add_argument("--runs", type=Path, default=ROOT / "checkpoints" / "datasets")
    parser.add_argument(
        "--peers", type=Path, default=PEERS, help="results of benchmarks.peers.on_sets to add"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/datasets.json")
    parser.add_argument("--set", nargs="+", default=[], dest="extra", metavar="OVERRIDE")
    parser.add_argument("--unit", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    check_sets(parser, arguments)
    return arguments


def add_sets(parser: argparse.ArgumentParser) -> None:
    """Options that say which sets, protocols and seeds; see ``check_sets`` and ``chosen``."""
    parser.add_argument(
        "--sets", type=Path, default=ROOT.parent / "shared/data/sets", help="a folder per set"
    )
    parser.add_argument("--only", type=_names, default=list(SETS), metavar="SET,SET")
    parser.add_argument("--protocols", type=_names, default=PROTOCOLS, metavar="SPLIT,SPLIT")
    parser.add_argument("--seeds", type=int, default=1, help="of each protocol (default 1)")


def check_sets(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End with a message where the options of ``add_sets`` name what is not known."""
    for what, given, known in (
        ("--only", arguments.only, list(SETS)),
        ("--protocols", arguments.protocols, PROTOCOLS),
    ):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"{what}: expected some of {', '.join(known)}; found {', '.join(unknown)}")
    if arguments.seeds < 1:
        parser.error("--seeds must be at least 1")
    arguments.sets = arguments.sets.resolve()


def chosen(arguments: argparse.Namespace) -> list[Wanted]:
    """The units to run; says what is passed over.

    Raises:
        InputError: when nothing is left.
    """
    wanted = []
    options = _options(arguments)
    for name in arguments.only:
        missing = SETS[name].missing(arguments.sets / name)
        if missing:
            print(f"{name} is passed over: {', '.join(missing)} not in {arguments.sets / name}")
            continue
        wanted += [
            Wanted(name, protocol, seed, arguments.sets / name, *options)
            for protocol in SETS[name].protocols
            if protocol in arguments.protocols
            for seed in range(arguments.seeds)
        ]
    if not wanted:
        raise InputError(
            f"one of {', '.join(arguments.only)} in {arguments.sets} with a protocol of "
            f"{', '.join(arguments.protocols)}",
            "none",
            "give the folder that holds the sets with --sets, or other --only and --protocols",
        )
    return wanted


def run_all(arguments: argparse.Namespace) -> None:
    """Run what is missing; write the figures, the tables and the page after each."""
    wanted = chosen(arguments)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    units: dict[tuple[str, str], list[Unit]] = {}
    with Progress(*columns, TimeElapsedColumn()) as progress:
        task = progress.add_task("", total=len(wanted))
        for one in wanted:
            progress.update(task, description=f"{one.name}, {one.protocol}, seed {one.seed}")
            unit = with_peers(run_unit(one, arguments.runs), arguments.peers / one.title)
            units.setdefault((one.name, one.protocol), []).append(unit)
            text = write(units, arguments.output)
            progress.advance(task)
    print(text)
    print(f"written to {arguments.output}, .md and .html beside it")


def write(units: dict[tuple[str, str], list[Unit]], output: Path) -> str:
    """Write what there is so far; returns the tables."""
    content = contents(units, machine(PACKAGES))
    text = markdown(content)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=2) + "\n")
    output.with_suffix(".md").write_text(text)
    output.with_suffix(".html").write_text(page(content), encoding="utf-8")
    return text


def _options(arguments: argparse.Namespace) -> tuple[bool, Sequence[str], bool, bool]:
    """What all units have in common, in the order of ``Wanted``."""
    return arguments.small, arguments.extra, arguments.stage2, arguments.lambdamart


def _names(text: str) -> Sequence[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    main()
