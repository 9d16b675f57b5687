"""One unit of the quality benchmark: everything trained and evaluated on one split and seed.

Run in a process of its own, so that its peak memory is its own.
"""

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from benchmarks.harness import load_setting, without_test_rows
from benchmarks.lambdamart import fit_lambdamart, rank_as_served
from benchmarks.runs import save_result
from recsys.baselines import Baseline, fit_all, rank
from recsys.evaluation import Targets, per_user_metrics
from recsys.metrics import hit_matrix
from recsys.recommender import Recommender
from recsys.training.composed_config import baseline_fits
from recsys.training.pipeline import (
    EVALUATION_K,
    Destination,
    served_ranking,
    stage2_lists,
    train_stage1,
    train_stage2,
)
from recsys.training.stage1 import Run


@dataclass
class Costs:
    """Seconds of each step, those of all its cores, and the process's peak memory in GB so far."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    peak_gb: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        """Measure the block as ``step``."""
        started, on_cores = time.perf_counter(), time.process_time()
        yield
        self.seconds[step] = time.perf_counter() - started
        self.cpu_seconds[step] = time.process_time() - on_cores
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.peak_gb[step] = peak / (1e9 if sys.platform == "darwin" else 1e6)


def measure(overrides: Sequence[str], seed: int, folder: Path) -> None:
    """Train all systems and write ``result.json`` and ``per_user.npz`` into ``folder``.

    ``per_user.npz``: system -> float [U, M], a row per user with held-out rows, in one order for
    all systems; a column per metric as named in ``result.json``.
    """
    setting = load_setting([*overrides, f"seed={seed}"])
    recipe = setting.recipe(seed, stage2=True)
    assert recipe.reranking is not None
    held_out = setting.data.split.test
    data = without_test_rows(setting.data)
    # Whatever trains from here on is handed no held-out row: there is none to tune on.
    assert not len(data.split.test)
    assert len(held_out)
    costs = Costs()
    run = Run(recipe.trainer_factory, folder / "fit", resume=False)
    manifest = {"dataset": data.name, "split": data.split.name, "text": None}

    pl.seed_everything(seed, verbose=False)
    with costs.of("stage1"):
        stage1, _ = train_stage1(
            data,
            setting.text,
            recipe.retrieval,
            recipe.build_index,
            recipe.num_candidates,
            {},
            run,
            Destination(folder, "stage1", manifest),
        )
    with costs.of("lists"):
        lists = stage2_lists(
            data,
            stage1,
            recipe.retrieval,
            recipe.build_index,
            recipe.reranking,
            recipe.num_folds,
            run,
        )
    with costs.of("stage2"):
        bundle, _ = train_stage2(
            data, stage1, lists, recipe.reranking, run, Destination(folder, "stage2", manifest)
        )
    with costs.of("lambdamart"):
        lambdamart = fit_lambdamart(lists, seed)
    del lists
    fitted: dict[str, Baseline] = {}
    for name, fit in baseline_fits(setting.cfg.baselines).items():
        with costs.of(name):
            fitted |= fit_all({name: fit}, data.train, len(data.items))

    # Training is over: the held-out rows are looked at from here on.
    targets = Targets.from_frame(held_out, data.users, data.items)
    recommender = Recommender.load(bundle, stage2=True)
    users = targets.user_idx
    rankings = {
        name: torch.from_numpy(
            np.ascontiguousarray(rank(baseline, data.train, users, EVALUATION_K, seed))
        )
        for name, baseline in fitted.items()
    }
    rankings["lambdamart"] = rank_as_served(lambdamart, recommender, users, EVALUATION_K)
    for stage, rerank in (("stage1", False), ("stage2", True)):
        rankings[stage] = served_ranking(recommender, data, targets, rerank=rerank)
    write(folder, seed, rankings, targets, len(data.items), data.split.protocol, costs)


def write(
    folder: Path,
    seed: int,
    rankings: dict[str, Tensor],
    targets: Targets,
    num_items: int,
    protocol: str,
    costs: Costs,
) -> None:
    """Write the metrics of rankings (system -> int64 [U, K]), per user and on average."""
    per_user: dict[str, Any] = {}
    for system, ranked in rankings.items():
        hits = hit_matrix(ranked, targets.rows, targets.items, num_items)
        values = per_user_metrics(hits, targets.num_relevant)
        per_user[system] = torch.stack(list(values.values()), dim=1).numpy()
        metrics = list(values)
    content = {
        "protocol": protocol,
        "seed": seed,
        "n_users": len(targets),
        "metrics": metrics,
        "means": {
            system: dict(zip(metrics, values.mean(axis=0).tolist(), strict=True))
            for system, values in per_user.items()
        },
        "seconds": costs.seconds,
        "peak_gb": costs.peak_gb,
    }
    save_result(folder, content, per_user)
