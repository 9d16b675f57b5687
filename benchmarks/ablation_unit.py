"""One draw of the ablation: every variant trained without the validation rows, and ranked.

Run in a process of its own, as a draw of stage 2 takes long and need not be made twice.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from benchmarks.ablation_variants import (
    FULL,
    Variant,
    carve_validation,
    protocol,
    stage1_variants,
    stage2_recipes,
    texts,
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
from recsys.artifact import load_artifact, save_artifact
from recsys.baselines import FitBaseline, fit_all, rank
from recsys.data.prepare import TrainingData
from recsys.evaluation import Targets, per_user_metrics
from recsys.metrics import hit_matrix
from recsys.models.cross_encoder import CrossEncoder
from recsys.recommender import Recommender
from recsys.results import label
from recsys.signals.extractor import SignalExtractor
from recsys.signals.list_signals import signal_names
from recsys.text.reduction import TextReduction
from recsys.training.composed_config import baseline_fits
from recsys.training.folds import CandidateLists, build_extractor
from recsys.training.pipeline import EVALUATION_K, served_ranking

log = logging.getLogger(__name__)

STAGE1_ALONE = "stage 1 alone"
SCORES_ALONE = "of the signals, stage 1's scores alone"
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
        fits = baseline_fits(setting.cfg.baselines)
        rankings |= baseline_rankings(fits, data, targets, seed)
    per_user = {}
    for name, ranked in rankings.items():
        hits = hit_matrix(ranked, targets.rows, targets.items, len(data.items))
        values = per_user_metrics(hits, targets.num_relevant)
        per_user[name] = torch.stack([values[metric] for metric in METRICS], dim=1).numpy()
    content = {
        "dataset": data.name,
        "split": data.split.name,
        "protocol": protocol(data),
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


def baseline_rankings(
    fits: Mapping[str, FitBaseline], data: TrainingData, targets: Targets, seed: int
) -> dict[str, Tensor]:
    """What the baselines answer, with the settings that are configured."""
    return {
        label(name): torch.from_numpy(
            np.ascontiguousarray(rank(baseline, data.train, targets.user_idx, EVALUATION_K, seed))
        )
        for name, baseline in fit_all(fits, data.train, len(data.items)).items()
    }


def tower_rankings(
    recommender: Recommender, towers: Sequence[str], full: Variant, targets: Targets
) -> dict[str, Tensor]:
    """What is answered when the scores of the other towers count nothing.

    Sets the tower scales of the recommender's model, and puts them back.
    """
    scales = recommender.artifact.two_tower.scales
    fitted = scales.clone()
    rankings = {}
    for number, tower in enumerate(towers):
        scales.zero_()
        scales[number] = fitted[number]
        # A new one: a recommender takes the scales as they are when it is made.
        alone = Recommender(recommender.artifact, stage2=False)
        rankings[f"{tower} tower alone"] = served_ranking(alone, full.data, targets, rerank=False)
    scales.copy_(fitted)
    return rankings


def stage2_rankings(full: Variant, targets: Targets, seed: int) -> dict[str, Tensor]:
    """What both stages answer by variant: int64 [U, 100]. All variants re-rank the same lists."""
    with tempfile.TemporaryDirectory() as folder:
        bench = _Stage2(full, targets, Path(folder))
        log.info("stage 2: %s", FULL)
        rankings = {FULL: bench.ranking(full.recipe), STAGE1_ALONE: bench.stage1_ranking()}
        for name, text in texts(full.text, seed).items():
            log.info("stage 2: %s", name)
            rankings[name] = bench.with_text(text).ranking(full.recipe)
        for name, recipe in stage2_recipes(full.recipe).items():
            log.info("stage 2: %s", name)
            rankings[name] = bench.ranking(recipe)
        log.info("stage 2: %s", SCORES_ALONE)
        with stage1_scores_alone():
            rankings[SCORES_ALONE] = bench.ranking(full.recipe)
    return rankings


@contextmanager
def stage1_scores_alone() -> Iterator[None]:
    """Within it, cross-encoders are trained that read no other signal than stage 1's scores."""
    original = CrossEncoder.fit_statistics

    def fit(model: CrossEncoder, signals: Tensor, *rest: Any) -> None:
        original(model, signals, *rest)
        num_towers = len(model.signal_scale) - len(signal_names(0))
        is_score = [name.startswith("score") for name in signal_names(num_towers)]
        model.signal_scale[~torch.tensor(is_score)] = 0.0

    with patch.object(CrossEncoder, "fit_statistics", fit):
        yield


class _Stage2:
    """Trains a stage 1 in ``folder``, and then stage 2 on its lists as often as is asked."""

    def __init__(self, variant: Variant, targets: Targets, folder: Path) -> None:
        self.data, self.targets, self.folder = variant.data, targets, folder
        self.stage1 = write_stage1(variant.recipe, variant.data, variant.text, folder)
        self.lists = candidate_lists(variant.recipe, variant.data, self.stage1, folder)

    def with_text(self, text: Tensor) -> "_Stage2":
        """For the same lists, of items that have other text, float32 [N + 1, T]."""
        other = copy(self)
        artifact = load_artifact(self.stage1)
        # Its items keep the vectors that they have.
        other.stage1 = save_artifact(
            self.folder,
            "other_text",
            manifest=artifact.manifest,
            users=artifact.users,
            items=artifact.items,
            user_frame=artifact.user_frame,
            item_frame=artifact.item_frame,
            histories=artifact.histories,
            text=text,
            attributes=artifact.attributes,
            two_tower=artifact.two_tower,
            index=artifact.index,
            latest=False,
        )
        other.lists = [replace(one, extractor=_extractor(one, text)) for one in self.lists]
        return other

    def stage1_ranking(self) -> Tensor:
        return self._served(self.stage1, rerank=False)

    def ranking(self, recipe: Recipe) -> Tensor:
        bundle = write_stage2(recipe, self.data, self.stage1, self.lists, self.folder)
        return self._served(bundle, rerank=True)

    def _served(self, bundle: Path, *, rerank: bool) -> Tensor:
        recommender = Recommender.load(bundle, stage2=True)
        return served_ranking(recommender, self.data, self.targets, rerank=rerank)


def _extractor(lists: CandidateLists, text: Tensor) -> SignalExtractor:
    """That of some lists, for other text."""
    old = lists.extractor
    reduction = TextReduction.fit(text, old.relations.width)
    return build_extractor(lists.histories, reduction(text), old.max_history)
