"""What each part of the product is worth, on validation rows carved out of the training rows.

    python benchmarks/ablation.py --draws 3 --stage2
    python benchmarks/ablation.py --no-stage1 --stage2 data=files data.interactions=...

Every draw of validation rows is measured in a process of its own, and kept in ``--runs``, so that
an interrupted benchmark goes on where it stopped. The test rows play no part: the parts may be
chosen by these figures.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.ablation_tables import markdown, results_table, summarize
from benchmarks.ablation_unit import measure
from benchmarks.harness import PACKAGES, argument_parser, parse_arguments
from benchmarks.quality_tables import Unit
from benchmarks.runs import ROOT, machine, run_once
from recsys.errors import InputError

CODE = (
    "benchmarks/ablation_unit.py",
    "benchmarks/ablation_variants.py",
    "benchmarks/training.py",
    "benchmarks/harness.py",
)
"""What a result depends on beside the product."""


def main() -> None:
    parser = argument_parser("Measure what each part of the product is worth.")
    parser.add_argument(
        "--stage1",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure the two-tower alone",
    )
    parser.add_argument("--runs", type=Path, default=ROOT / "checkpoints" / "ablation")
    parser.add_argument("--unit", type=Path, help=argparse.SUPPRESS)
    parser.set_defaults(output=ROOT / "benchmarks/results/ablation.json")
    arguments = parse_arguments(parser)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in ("recsys", "benchmarks"):
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        if arguments.unit is not None:
            unit, seed = arguments.unit, arguments.seed
            measure(arguments.overrides, seed, unit, stage2=arguments.stage2)
            return
        present(run_all(arguments), arguments.output)
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


def run_draw(stage: str, seed: int, overrides: list[str], runs: Path) -> Unit:
    """The result of one draw for ``stage1`` or ``stage2``, from disk or from a new process."""
    flag = "--stage2" if stage == "stage2" else "--no-stage2"
    arguments = [flag, "--seed", str(seed), *overrides]
    return Unit.load(run_once(f"{stage}-{seed}", __file__, arguments, CODE, runs))


def run_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing; all of the figures."""
    asked = {"stage1": arguments.stage1, "stage2": arguments.stage2}
    wanted = [stage for stage, is_asked in asked.items() if is_asked]
    if not wanted:
        raise InputError("a stage to measure", "--no-stage1 alone", "add --stage2")
    seeds = range(arguments.seed, arguments.seed + arguments.draws)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    draws: dict[str, list[Unit]] = {stage: [] for stage in wanted}
    with Progress(*columns, TimeElapsedColumn()) as progress:
        task = progress.add_task("", total=len(wanted) * len(seeds))
        for stage in wanted:
            for seed in seeds:
                progress.update(task, description=f"{stage}, draw {seed}")
                draws[stage].append(run_draw(stage, seed, arguments.overrides, arguments.runs))
                progress.advance(task)
    content = draws[wanted[0]][0].content
    return {
        "machine": machine(PACKAGES),
        **{key: content[key] for key in ("dataset", "split", "protocol")},
        "seed": arguments.seed,
        "overrides": arguments.overrides,
        "stages": {stage: summarize(units) for stage, units in draws.items()},
    }


def present(content: dict[str, Any], output: Path) -> None:
    """Print the tables, and write them and all figures beside each other."""
    console = Console()
    for stage, summary in content["stages"].items():
        console.print(results_table(stage, summary))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=2) + "\n")
    output.with_suffix(".md").write_text(markdown(content))
    console.print(f"written to {output} and {output.with_suffix('.md').name}", highlight=False)


if __name__ == "__main__":
    main()
