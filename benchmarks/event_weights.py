"""What it brings to let a purchase count more than a view: ``python benchmarks/event_weights.py``.

Both models learn from the same rows of the same log (``benchmarks/event_log.py``) and are asked for
the purchases that are held out, in the whole catalogue.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.event_log import PURCHASE, VIEW, event_log
from benchmarks.harness import (
    PACKAGES,
    load_setting,
    parse_arguments,
    plain_table,
    present,
)
from benchmarks.runs import counted, machine
from benchmarks.training import train_recommender
from recsys.errors import InputError
from recsys.evaluation import Targets, paired_bootstrap
from recsys.metrics import hit_matrix, ndcg_at_k
from recsys.schema import TYPE
from recsys.training.pipeline import served_ranking

TITLE = "Purchases and views"
WEIGHTS = {VIEW: 1, PURCHASE: 10}
_NUM_USERS, _NUM_ITEMS, _NUM_EVENTS = 600, 500, 30_000
_K = 10

log = logging.getLogger("benchmarks.event_weights")


def main() -> None:
    """Train with and without weights on each draw, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2, help="logs that are drawn (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="log d is seeded with seed + d")
    parser.add_argument("--output", type=Path, help="write the figures here, the table to .md")
    parser.add_argument("overrides", nargs="*", help="of configs/train.yaml")
    arguments = parse_arguments(parser)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    try:
        draws = [
            measure(arguments.seed + draw, arguments.overrides) for draw in range(arguments.draws)
        ]
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    content = {
        "machine": machine(PACKAGES),
        "protocol": f"{_NUM_USERS} users, {_NUM_ITEMS} items, {_NUM_EVENTS:,} events and as many "
        f"clicks at random; ten random rows per user held out, NDCG@{_K} of the purchases among "
        "them; intervals: paired bootstrap over users.",
        "seed": arguments.seed,
        "overrides": list(arguments.overrides),
        "weights": WEIGHTS,
        **summary(draws, arguments.seed),
    }
    present(TITLE, [table(content)], content, arguments.output)


def measure(seed: int, overrides: list[str]) -> dict[str, NDArray[np.float64]]:
    """NDCG of each user's held-out purchases, float64 [U]: "stage1, alike", "stage1, weighted"…"""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.csv" for name in ("interactions", "items")}
        shop = event_log(_NUM_USERS, _NUM_ITEMS, _NUM_EVENTS, seed)
        shop.interactions.to_csv(files["interactions"], index=False)
        shop.items.to_csv(files["items"], index=False)
        common = [
            *("data=files", "data.split=random", "data.num_test=10", f"data.split_seed={seed}"),
            *(f"data.{name}={file}" for name, file in files.items()),
            *overrides,
        ]
        by_type = ",".join(f"{name}:{weight}" for name, weight in WEIGHTS.items())
        settings = {
            "alike": load_setting(common),
            "weighted": load_setting([*common, f"data.event_weights={{{by_type}}}"]),
        }
    test = settings["weighted"].data.split.test
    found = {}
    for name, setting in settings.items():
        log.info("log %d: training, events %s", seed, name)
        pl.seed_everything(seed, verbose=False)
        data = setting.data
        targets = Targets.from_frame(test[test[TYPE] == PURCHASE], data.users, data.items)
        recommender = train_recommender(setting.recipe(seed, stage2=True), data, setting.text)
        for stage, rerank in (("stage 1", False), ("stage 2", True)):
            ranked = served_ranking(recommender, data, targets, rerank=rerank)
            hits = hit_matrix(ranked, targets.rows, targets.items, len(data.items))
            values = ndcg_at_k(hits, targets.num_relevant, _K)
            found[f"{stage}, {name}"] = values.numpy().astype(np.float64)
            log.info("log %d: %s, %s: %.4f", seed, stage, name, float(torch.mean(values)))
    return found


def summary(draws: list[dict[str, NDArray[np.float64]]], seed: int) -> dict[str, Any]:
    """Means over the users of all draws, and what weights add to them."""
    values = {name: np.concatenate([draw[name] for draw in draws]) for name in draws[0]}
    gains = {}
    for stage in ("stage 1", "stage 2"):
        alike, weighted = values[f"{stage}, alike"], values[f"{stage}, weighted"]
        low, high = paired_bootstrap((weighted - alike)[:, None], seed)[:, 0]
        gains[stage] = {
            "alike": float(alike.mean()),
            "weighted": float(weighted.mean()),
            "difference": float((weighted - alike).mean()),
            "low": float(low),
            "high": float(high),
            "gain": float(weighted.mean() / alike.mean() - 1.0),
        }
    return {"draws": len(draws), "num_users": len(values["stage 1, alike"]), "ndcg@10": gains}


def table(content: Mapping[str, Any]) -> Table:
    """A row per stage."""
    made = plain_table(
        f"NDCG@{_K} of purchases, {counted(content['draws'], 'log')}, "
        f"{content['num_users']:,} users",
        "weights: " + ", ".join(f"{name} {weight}" for name, weight in content["weights"].items()),
    )
    made.add_column("system", no_wrap=True)
    for name in ("alike", "weighted", "difference", "95% interval", "gain"):
        made.add_column(name, justify="right", no_wrap=True)
    for stage, one in content["ndcg@10"].items():
        made.add_row(
            stage,
            *(f"{one[name]:.4f}" for name in ("alike", "weighted")),
            f"{one['difference']:+.4f}",
            f"{one['low']:+.4f} to {one['high']:+.4f}",
            f"{one['gain']:+.1%}",
        )
    return made


if __name__ == "__main__":
    main()
