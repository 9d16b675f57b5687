"""Search hyper-parameters on validation events alone, by Optuna over the product's configuration.

    python benchmarks/tune.py als --trials 25
    python benchmarks/tune.py stage1 --trials 30 --draws 2 trainer.accelerator=gpu

The search spaces are in benchmarks/search_spaces.yaml. A trial fits on training rows less ten
random events per user, and its value is NDCG@10 on those events, averaged over draws of them. The
configuration as it is comes first. A study is kept in checkpoints/tuning: the same command goes on
where it was interrupted, and a larger --trials adds trials. One process at a time may run a study.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.ablation_variants import NUM_HELD_OUT
from benchmarks.runs import fingerprint, machine, machine_line
from benchmarks.tuning.lists import ListCache
from benchmarks.tuning.progress import TrialProgress
from benchmarks.tuning.report import markdown, summary
from benchmarks.tuning.rows import TrainingRows, ValidationDraw
from benchmarks.tuning.space import Params, defaults, describe, load_space
from benchmarks.tuning.study import best_trials, finished, open_study, run_study
from benchmarks.tuning.targets import TARGETS, Problem, Target, configuration
from recsys.core.threads import chosen_threads, use_threads
from recsys.errors import InputError
from recsys.training.composed_config import load_data

console = Console(stderr=True)
CODE = (
    "benchmarks/lambdamart.py",
    "benchmarks/tuning/lists.py",
    "benchmarks/tuning/rows.py",
    "benchmarks/tuning/targets.py",
)
"""What a trial's value depends on beside the product."""
PACKAGES = ("torch", "faiss-cpu", "implicit", "lightgbm", "optuna")
RESULTS = Path(__file__).parent / "results" / "tuning"


def tune(arguments: argparse.Namespace, results: Path = RESULTS) -> optuna.Study:
    """Run or go on with a study, and write its page.

    Raises:
        InputError: on a mistyped override, or when the study was begun with other options, data
            or code.
    """
    target: Target = TARGETS[arguments.target]
    cfg = configuration(arguments.overrides)
    space = load_space(arguments.target)
    default = defaults(cfg, space)
    # From here on there are no test rows.
    data = load_data(cfg)
    use_threads(chosen_threads(cfg.threads, len(data.items)))
    rows = TrainingRows.of(data)
    num_draws = arguments.draws or target.num_draws
    folder = Path(cfg.output_dir) / "tuning"
    lists = ListCache(folder / "lists")
    problem = Problem(rows, tuple(arguments.overrides), arguments.metric, lists)
    protocol = {"metric": arguments.metric, "draws": num_draws, "seed": cfg.seed}
    study = open_study(
        folder / f"{arguments.study or arguments.target}.db",
        {
            "target": arguments.target,
            **protocol,
            "code": fingerprint([], CODE),
            "rows": rows.data.fingerprint,
            "search space": describe(space),
            **_plain(cfg, target.groups),
        },
        target.warmup,
    )
    evaluate = partial(_evaluate, problem, target, rows.draws(num_draws, cfg.seed))
    trials = run_study(
        study,
        space,
        default,
        evaluate,
        num_trials=arguments.trials,
        num_draws=num_draws,
        seed=cfg.seed,
    )
    _watch(study, trials, arguments.trials, arguments.metric)
    facts = {
        "data": f"{rows.data.name}, training rows of split {rows.data.split.name}",
        "validation events": f"{NUM_HELD_OUT} random ones per user, at most half of a user's",
        **protocol,
        "overrides": " ".join(arguments.overrides) or "none",
        "measured on": machine_line(machine(PACKAGES)).rstrip("."),
    }
    results.mkdir(parents=True, exist_ok=True)
    page = results / f"{study.study_name}.md"
    page.write_text(markdown(study, f"Tuning {arguments.target}", facts))
    Console().print(summary(study, arguments.metric), soft_wrap=True, highlight=False)
    Console().print(f"\nwritten to {page}", soft_wrap=True, highlight=False)
    return study


def _evaluate(
    problem: Problem,
    target: Target,
    draws: Sequence[ValidationDraw],
    params: Params,
    progress: TrialProgress,
) -> float:
    cfg = problem.configured(params)
    for draw in draws:
        progress.finish_draw(target.measure(problem, cfg, draw, progress.report))
    return progress.mean


def _watch(study: optuna.Study, trials: Any, num_trials: int, metric: str) -> None:
    """A bar with the best value so far, and a line for each trial."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("best {task.fields[best]}"),
        console=console,
        transient=True,
    )
    with bar:
        done = len(finished(study))
        task = bar.add_task(study.study_name, total=num_trials, completed=done, best=_best(study))
        for trial in trials:
            bar.update(task, advance=1, best=_best(study))
            bar.console.print(_line(trial, metric), highlight=False)


def _best(study: optuna.Study) -> str:
    complete = best_trials(study)
    return f"{complete[0].value:.4f}" if complete else "-"


def _line(trial: FrozenTrial, metric: str) -> str:
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    value = "pruned" if trial.state == optuna.trial.TrialState.PRUNED else f"{trial.value:.4f}"
    return f"trial {trial.number:3d}  {metric} {value}  in {seconds:.0f} s"


def _plain(cfg: DictConfig, groups: Sequence[str]) -> dict[str, Any]:
    content = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(content, dict)
    return {f"configs of {group}": content[group] for group in groups}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=TARGETS, help="what is tuned")
    parser.add_argument(
        "--trials", type=int, default=30, help="in total, earlier runs included (default 30)"
    )
    by_target = ", ".join(f"{name} {target.num_draws}" for name, target in TARGETS.items())
    parser.add_argument(
        "--draws", type=int, help=f"validation draws that a trial averages (default: {by_target})"
    )
    parser.add_argument(
        "--metric", default="ndcg@10", help="ndcg@K or recall@K, K up to 100 (default ndcg@10)"
    )
    parser.add_argument("--study", help="its name; studies of one name go on (default: target)")
    parser.add_argument(
        "overrides", nargs="*", help="of configs/train.yaml or lambdamart.*, e.g. data=sample"
    )
    parsed = parser.parse_intermixed_args(arguments)
    if parsed.trials < 1 or (parsed.draws is not None and parsed.draws < 1):
        parser.error("--trials and --draws must be at least 1")
    match = re.fullmatch(r"(ndcg|recall)@(\d{1,3})", parsed.metric)
    if match is None or not 1 <= int(match[2]) <= 100:
        parser.error("--metric must be ndcg@K or recall@K with K in 1..100")
    if parsed.study is not None and not re.fullmatch(r"[\w.-]+", parsed.study):
        parser.error("--study must be of letters, digits and ._- alone")
    return parsed


def main() -> None:
    handler = RichHandler(console=console, show_time=False, show_level=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arguments = parse_arguments()
    try:
        tune(arguments)
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        sys.exit("interrupted; the same command goes on after the last finished trial")


if __name__ == "__main__":
    main()
