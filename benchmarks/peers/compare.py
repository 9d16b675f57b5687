"""Models of RecBole and RecTools on the rows and by the metrics of the quality benchmark.

They need older packages than the project, so they are fitted by a Python of their own:

    python -m venv checkpoints/peers/env
    checkpoints/peers/env/bin/pip install -r benchmarks/peers/requirements.txt
    python -m benchmarks.peers.compare

Each model runs with its library's default settings. The number of epochs is chosen on ten random
training rows per user, then the model is trained on all of them. The peers are handed training rows
alone; their lists are compared with the held-out rows here.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.harness import (
    cell,
    load_setting,
    mean_metrics,
    plain_table,
    present,
    summarize,
    without_test_rows,
)
from benchmarks.peers.exchange import K, Lists, Rows, load
from benchmarks.runs import ROOT, counted, machine
from recsys.baselines import fit_all, rank
from recsys.data.histories import Histories
from recsys.data.prepare import TrainingData, hold_out_random
from recsys.errors import InputError
from recsys.evaluation import Targets
from recsys.results import column_name, label
from recsys.training.composed_config import baseline_fits

MODELS = {
    "RecBole MultiVAE": ("fit_recbole.py", "MultiVAE"),
    "RecBole LightGCN": ("fit_recbole.py", "LightGCN"),
    "RecTools SASRec": ("fit_rectools.py", "SASRec"),
}
METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "recall@100", "ndcg@100")
NUM_HELD_OUT = 10
"""Validation rows per user."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    add_peers(parser)
    parser.add_argument("--seeds", type=int, default=3, help="runs to average (default 3)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/peers.json")
    parser.add_argument("overrides", nargs="*", help="of configs/train.yaml, e.g. data=sample")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error("--seeds must be at least 1")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        content = compare(arguments)
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    present("Other libraries", [table(content)], content, arguments.output)


def add_peers(parser: argparse.ArgumentParser) -> None:
    """Options that say which peers, and where they are installed."""
    parser.add_argument("--python", type=Path, default=ROOT / "checkpoints/peers/env/bin/python")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))


def check_python(python: Path) -> None:
    """Refuse to begin without the peers' Python.

    Raises:
        InputError: when it is missing.
    """
    if not python.is_file():
        raise InputError(
            "a Python that the peers are installed for",
            f"none at {python}",
            "see the top of benchmarks/peers/compare.py, or give --python",
        )


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fit every model with every seed; returns what ``present`` and ``table`` take.

    Raises:
        InputError: when the peers' Python is missing or fails.
    """
    check_python(arguments.python)
    setting = load_setting(arguments.overrides)
    targets = Targets.from_frame(setting.data.split.test, setting.data.users, setting.data.items)
    data = without_test_rows(setting.data)
    metrics: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn()) as progress:
        task = progress.add_task("", total=arguments.seeds * len(arguments.models))
        for seed in range(arguments.seeds):
            rows = training_rows(data.train, seed)
            rankings = yardsticks(setting.cfg.baselines, data, targets.user_idx, seed)
            facts.append({})
            for name in arguments.models:
                progress.update(task, description=f"{name}, seed {seed}")
                lists, facts[-1][name] = run(arguments.python, name, rows, seed)
                rankings[name] = fill(lists, rankings["popularity"], targets.user_idx)
                progress.advance(task)
            metrics.append(
                {
                    name: mean_metrics(torch.from_numpy(ranked), targets, len(data.items), METRICS)
                    for name, ranked in rankings.items()
                }
            )
    return {
        "dataset": data.name,
        "protocol": f"{data.split.protocol}.",
        "machine": machine(("torch",)),
        "overrides": list(arguments.overrides),
        "facts": facts,
        **summarize(metrics),
    }


def training_rows(train: Histories, seed: int) -> Rows:
    """All training rows, and the same with a validation part carved out."""
    return as_rows(train, *hold_out_random(train, NUM_HELD_OUT, seed))


def as_rows(train: Histories, fit: Histories, validation: Histories) -> Rows:
    """All training rows, and the parts that they are of, as the peers read them."""
    frames = (
        pd.DataFrame(
            {
                "user_id": part.user_idx,
                "item_id": part.item_idx,
                "timestamp": part.timestamps,
            }
        )
        for part in (train, fit, validation)
    )
    return Rows(*frames)


def yardsticks(
    baselines: DictConfig, data: TrainingData, users: NDArray[np.int64], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Lists [U, K] of the project's own baselines, to see that rows and metrics are the same."""
    fitted = fit_all(baseline_fits(baselines), data.train, len(data.items))
    return {name: rank(model, data.train, users, K, seed) for name, model in fitted.items()}


def run(python: Path, name: str, rows: Rows, seed: int) -> tuple[Lists, dict[str, Any]]:
    """Fit a peer in a process of its own, in a folder with nothing but the training rows.

    Raises:
        InputError: when it fails; its last line is in the message.
    """
    script, model = MODELS[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows.write(folder)
        command = [
            str(python.absolute()),
            str(Path(__file__).with_name(script)),
            model,
            str(folder),
        ]
        done = subprocess.run(
            [*command, "--seed", str(seed)], capture_output=True, text=True, cwd=folder
        )
        if done.returncode:
            tail = (done.stdout + done.stderr).strip().splitlines()[-1:]
            raise InputError(
                f"{name} to finish",
                " ".join(tail) or f"exit code {done.returncode}",
                "install benchmarks/peers/requirements.txt for that Python",
            )
        return load(folder)


def fill(lists: Lists, popular: NDArray[np.int64], users: NDArray[np.int64]) -> NDArray[np.int64]:
    """The lists of ``users`` [U] in that order; for users whom a peer does not know, ``popular``.

    Args:
        popular: int64 [U, K].

    Returns:
        int64 [U, K].
    """
    rows = pd.Index(lists.user_id).get_indexer(pd.Index(users))
    return np.where((rows >= 0)[:, None], lists.item_id[rows], popular)


def table(content: Mapping[str, Any]) -> Table:
    """A row per system: metrics, epochs, minutes and memory."""
    seeds = counted(len(content["draws"]), "seed")
    result = plain_table(
        f"{content['dataset']}: mean±sd of {seeds}",
        f"{versions(content['facts'][0])}; epochs and seconds are medians",
    )
    result.add_column("system")
    for metric in METRICS:
        result.add_column(column_name(metric), justify="right")
    for header in ("epochs", "seconds", "GB"):
        result.add_column(header, justify="right")
    for name in content["mean"]:
        of_peer = [facts[name] for facts in content["facts"] if name in facts]
        costs = [
            f"{float(np.median([facts[key] for facts in of_peer])):{form}}" if of_peer else ""
            for key, form in (("epochs", ".0f"), ("seconds", ".0f"), ("peak_gb", ".1f"))
        ]
        metrics = [cell(content, name, metric) for metric in METRICS]
        result.add_row(label(name), *metrics, *costs)
    return result


def versions(facts: Mapping[str, Any]) -> str:
    """``recbole 1.2.1, torch 2.13.0``."""
    numbers = {package: at for peer in facts.values() for package, at in peer["versions"].items()}
    return ", ".join(f"{package} {number}" for package, number in sorted(numbers.items()))


if __name__ == "__main__":
    main()
