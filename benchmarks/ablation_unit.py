"""One draw of the ablation: every variant trained without the validation rows, and ranked.

Run in a process of its own, as a draw of stage 2 takes long and need not be made twice.
"""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from benchmarks.ablation_variants import (
    FULL,
    NUM_HELD_OUT,
    Variant,
    carve_validation,
    stage1_variants,
    stage2_recipes,
    text_variants,
)
from benchmarks.harness import load_setting
from benchmarks.runs import save_result
from benchmarks.training import (
    Recipe,
    candidate_lists,
    train_recommender,
    write_stage1,
    write_stage2,
)
from recsys.evaluation import Targets, per_user_metrics
from recsys.metrics import hit_matrix
from recsys.recommender import Recommender
from recsys.training.folds import CandidateLists
from recsys.training.pipeline import served_ranking

log = logging.getLogger(__name__)

STAGE1_ALONE = "stage 1 alone"
METRICS = ("ndcg@10", "recall@10", "recall@100")


def measure(overrides: Sequence[str], seed: int, folder: Path, *, stage2: bool) -> None:
    """Write ``result.json`` and ``per_user.npz`` (variant -> float64 [U, M]) into ``folder``.

    With ``stage2`` the variants of stage 2, otherwise those of stage 1.
    """
    setting = load_setting([*overrides, f"seed={seed}"])
    data, targets = carve_validation(setting.data, seed)
    full = Variant(setting.recipe(seed, stage2=stage2), data, setting.text)
    pl.seed_everything(seed, verbose=False)
    if stage2:
        rankings = stage2_rankings(full, targets, seed)
    else:
        rankings = stage1_rankings(full, list(setting.cfg.retrieval.towers), targets, seed)
    per_user = {}
    for name, ranked in rankings.items():
        hits = hit_matrix(ranked, targets.rows, targets.items, len(data.items))
        values = per_user_metrics(hits, targets.num_relevant)
        per_user[name] = torch.stack([values[metric] for metric in METRICS], dim=1).numpy()
    content = {
        "dataset": data.name,
        "split": data.split.name,
        "protocol": f"{NUM_HELD_OUT} random training rows per user, at most half of them, are held "
        "out of training; no test row is read",
        "seed": seed,
        "n_users": len(targets),
        "metrics": list(METRICS),
    }
    save_result(folder, content, per_user)


def stage1_rankings(
    full: Variant, towers: Sequence[str], targets: Targets, seed: int
) -> dict[str, Tensor]:
    """What stage 1 answers by variant: int64 [U, 100]. Towers alone are those of the full model."""
    rankings = {}
    for name, variant in stage1_variants(full, seed).items():
        log.info("stage 1: %s", name)
        recommender = train_recommender(variant.recipe, variant.data, variant.text)
        rankings[name] = served_ranking(recommender, variant.data, targets, rerank=False)
        if name == FULL and len(towers) > 1:
            alone = tower_rankings(recommender, towers, variant, targets)
    return rankings | alone if len(towers) > 1 else rankings


def tower_rankings(
    recommender: Recommender, towers: Sequence[str], full: Variant, targets: Targets
) -> dict[str, Tensor]:
    """What is answered when the scores of the other towers count nothing.

    Sets the recommender's tower scales.
    """
    scales = recommender.retriever.model.scales
    fitted = scales.clone()
    rankings = {}
    for number, tower in enumerate(towers):
        scales.zero_()
        scales[number] = fitted[number]
        rankings[f"{tower} tower alone"] = served_ranking(
            recommender, full.data, targets, rerank=False
        )
    scales.copy_(fitted)
    return rankings


def stage2_rankings(full: Variant, targets: Targets, seed: int) -> dict[str, Tensor]:
    """What both stages answer by variant: int64 [U, 100]; text is changed in both stages."""
    rankings = {}
    for name, variant in text_variants(full, seed).items():
        log.info("stage 2: %s", name)
        with tempfile.TemporaryDirectory() as folder:
            bench = _Stage2(variant, targets, Path(folder))
            lists = bench.lists(variant.recipe)
            rankings[name] = bench.ranking(variant.recipe, lists)
            if name != FULL:
                continue
            rankings[STAGE1_ALONE] = bench.stage1_ranking()
            for other, recipe in stage2_recipes(variant.recipe).items():
                log.info("stage 2: %s", other)
                rankings[other] = bench.ranking(recipe, lists)
    return rankings


class _Stage2:
    """Trains a stage 1 in ``folder``, and then stage 2 on it as often as is asked."""

    def __init__(self, variant: Variant, targets: Targets, folder: Path) -> None:
        self.data, self.targets, self.folder = variant.data, targets, folder
        self.stage1 = write_stage1(variant.recipe, variant.data, variant.text, folder)

    def stage1_ranking(self) -> Tensor:
        return self._served(self.stage1, rerank=False)

    def lists(self, recipe: Recipe) -> list[CandidateLists]:
        return candidate_lists(recipe, self.data, self.stage1, self.folder)

    def ranking(self, recipe: Recipe, lists: Sequence[CandidateLists]) -> Tensor:
        bundle = write_stage2(recipe, self.data, self.stage1, lists, self.folder)
        return self._served(bundle, rerank=True)

    def _served(self, bundle: Path, *, rerank: bool) -> Tensor:
        recommender = Recommender.load(bundle)
        return served_ranking(recommender, self.data, self.targets, rerank=rerank)
