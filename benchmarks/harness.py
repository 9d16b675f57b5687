"""What the benchmarks share: the product's own configuration, summaries over draws, a table."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.runs import machine, machine_line
from benchmarks.training import Recipe
from recsys.cli import CONFIG_DIR
from recsys.core.threads import chosen_threads, use_threads
from recsys.data.prepare import TrainingData
from recsys.errors import InputError
from recsys.evaluation import Targets
from recsys.metrics import hit_matrix, ndcg_at_k, recall_at_k
from recsys.overrides import HYDRA_VERSION, check_overrides
from recsys.training.composed_config import (
    item_vectors,
    load_data,
    reranking_recipe,
    retrieval_recipe,
)
from recsys.training.fit import TrainerFactory
from recsys.training.stage1 import BuildIndex

log = logging.getLogger(__name__)

PACKAGES = ("torch", "faiss-cpu")
"""Whose versions are told beside the figures."""


@dataclass(frozen=True)
class Setting:
    """The product as ``train.py`` would train it with the same overrides.

    text: float32 [N + 1, T], one vector per item of the catalogue, row 0 zeros.
    """

    cfg: DictConfig
    data: TrainingData
    text: Tensor
    build_index: BuildIndex
    trainer_factory: TrainerFactory

    def recipe(self, seed: int, *, stage2: bool) -> Recipe:
        """The configured recipes, seeded; without ``stage2`` the two-tower alone."""
        reranking = self.cfg.reranking
        return Recipe(
            retrieval=retrieval_recipe(self.cfg.retrieval, seed),
            reranking=reranking_recipe(reranking, seed) if stage2 else None,
            num_candidates=self.cfg.retrieval.num_candidates,
            num_folds=reranking.num_folds,
            build_index=self.build_index,
            trainer_factory=self.trainer_factory,
        )


def load_setting(
    overrides: Sequence[str], load: Callable[[DictConfig], TrainingData] = load_data
) -> Setting:
    """Compose ``configs/train.yaml``, load the data and embed (or fetch from the cache) the texts.

    Args:
        load: makes the data in place of what ``train.py`` does.

    Raises:
        InputError: on a mistyped override, or data that can't be had.
    """
    check_overrides(CONFIG_DIR, "train", overrides)
    with initialize_config_dir(str(CONFIG_DIR), version_base=HYDRA_VERSION):
        cfg = compose("train", list(overrides))
    data = load(cfg)
    use_threads(chosen_threads(cfg.threads, len(data.items)))
    vectors, _ = item_vectors(cfg.text, data.catalog.texts())
    text = torch.nn.functional.pad(torch.from_numpy(vectors), (0, 0, 1, 0))
    return Setting(cfg, data, text, instantiate(cfg.index).build, instantiate(cfg.trainer))


def without_test_rows(data: TrainingData) -> TrainingData:
    """The same training rows, with nothing held out to look at."""
    return replace(data, split=replace(data.split, test=data.split.test.iloc[:0]))


def mean_metrics(
    ranked: Tensor, targets: Targets, num_items: int, metrics: Sequence[str]
) -> dict[str, float]:
    """Averages over users of ``metrics`` such as ``recall@20`` and ``ndcg@20``.

    Args:
        ranked: int64 [U, K], row u for row u of ``targets``, best first, 0 in empty slots.
    """
    hits = hit_matrix(ranked, targets.rows, targets.items, num_items)
    functions = {"recall": recall_at_k, "ndcg": ndcg_at_k}
    means = {}
    for metric in metrics:
        name, k = metric.split("@")
        means[metric] = float(functions[name](hits, targets.num_relevant, int(k)).mean())
    return means


def over_draws(draws: Sequence[Any], function: Callable[[Any], Any]) -> Any:
    """Apply ``function`` to each number of equally nested dicts, gathered over the draws."""
    if isinstance(draws[0], Mapping):
        return {key: over_draws([draw[key] for draw in draws], function) for key in draws[0]}
    return float(function(np.asarray(draws, dtype=np.float64)))


def summarize(draws: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over draws (ddof 1; 0 for a single one), beside the draws."""

    def spread(values: Any) -> float:
        return float(values.std(ddof=1)) if len(values) > 1 else 0.0

    return {
        "mean": over_draws(draws, np.mean),
        "sd": over_draws(draws, spread),
        "draws": list(draws),
    }


def argument_parser(description: str, *, stage2: bool = True) -> argparse.ArgumentParser:
    """The command line of a benchmark: ``draws, seed, stage2, output, overrides``.

    Args:
        stage2: whether there is a choice of it.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--draws", type=int, default=3, help="random draws to average (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="draw d is seeded with seed + d")
    if stage2:
        parser.add_argument(
            "--stage2",
            action=argparse.BooleanOptionalAction,
            default=False,
            help="train and measure the cross-encoder too (slow)",
        )
    parser.add_argument(
        "--output", type=Path, help="write all figures to this JSON file, tables to .md beside it"
    )
    parser.add_argument("overrides", nargs="*", help="of configs/train.yaml, e.g. data=sample")
    return parser


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments given; ends the process with a message when a number is out of range."""
    arguments = parser.parse_args()
    if arguments.draws < 1 or arguments.seed < 0:
        parser.error("--draws must be at least 1 and --seed not negative")
    return arguments


def run_draws(
    arguments: argparse.Namespace, measure: Callable[[Setting, int], Mapping[str, Any]]
) -> dict[str, Any]:
    """Call ``measure`` with the setting and the seed of each draw, and summarise.

    Ends the process with one line on a user's mistake.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in ("recsys", "benchmarks", "__main__"):
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        setting = load_setting(arguments.overrides)
        draws = []
        for draw in range(arguments.draws):
            log.info("draw %d of %d", draw + 1, arguments.draws)
            pl.seed_everything(arguments.seed + draw, verbose=False)
            draws.append(measure(setting, arguments.seed + draw))
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    return {
        "machine": machine(PACKAGES),
        "dataset": setting.data.name,
        "split": setting.data.split.name,
        "seed": arguments.seed,
        "overrides": list(arguments.overrides),
        **summarize(draws),
    }


def plain_table(title: str, caption: str) -> Table:
    """An empty table whose rules leave room for numbers."""
    return Table(title=title, caption=caption, box=box.SIMPLE_HEAD, pad_edge=False)


def present(
    title: str, tables: Sequence[Table], content: Mapping[str, Any], output: Path | None
) -> None:
    """Print the tables; where ``output`` is given, write the figures there and the tables to .md.

    Args:
        title: heading of the Markdown file. content: as of ``run_draws``, with ``protocol``.
    """
    console = Console()
    for table in tables:
        console.print(table)
    if output is not None:
        output, page = output.with_suffix(".json"), output.with_suffix(".md")
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(content, indent=2) + "\n")
        paragraphs = [f"# {title}", str(content["protocol"]), machine_line(content["machine"])]
        if content["overrides"]:
            paragraphs.append(f"Overrides: `{' '.join(content['overrides'])}`.")
        page.write_text("\n\n".join([*paragraphs, *map(markdown_table, tables)]) + "\n")
        console.print(f"written to {output} and {page.name}", highlight=False)


def markdown_table(table: Table) -> str:
    """A table as Markdown below its title and caption; the cells must be plain strings."""
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    header, *rows = [
        f"| {' | '.join(' '.join(text.split()) for text in row)} |"
        for row in zip(*columns, strict=True)
    ]
    rules = ["---:" if column.justify == "right" else "---" for column in table.columns]
    lines = [f"## {table.title}", "", f"{table.caption}", "", header, f"|{'|'.join(rules)}|", *rows]
    return "\n".join(lines)


def cell(summary: Mapping[str, Any], *path: str) -> str:
    """``mean±sd`` of the number at ``path`` below the summary's ``mean`` and ``sd``."""
    mean, sd = summary["mean"], summary["sd"]
    for key in path:
        mean, sd = mean[key], sd[key]
    return f"{mean:.3f}±{sd:.3f}".replace("0.", ".")
