"""What each target fits on a validation draw, and how its lists are judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from benchmarks.lambdamart import DEFAULT_PARAMS, fit_lambdamart, score_lambdamart
from benchmarks.tuning.lists import ListCache, RerankingLists, make_lists
from benchmarks.tuning.progress import Report, ReportValidation, on_cpu, with_callback
from benchmarks.tuning.rows import TrainingRows, ValidationDraw
from benchmarks.tuning.space import Params, as_overrides
from recsys.baselines import rank
from recsys.cli import CONFIG_DIR
from recsys.models.cross_encoder import CrossEncoder
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.overrides import HYDRA_VERSION, check_overrides
from recsys.ranking import top_k
from recsys.reranker import Reranker, TorchScorer
from recsys.text.cache import EmbeddingCache
from recsys.text.reduction import TextReduction
from recsys.training.composed_config import reranking_recipe, retrieval_recipe
from recsys.training.folds import CandidateLists
from recsys.training.stage1 import Run, build_retriever, fit_two_tower, search
from recsys.training.stage2 import fit_stage2

_BATCH_SIZE = 64
_QUARTERS = 4
_STAGE1 = ("retrieval", "index", "text")


@dataclass(frozen=True)
class Target:
    """measure: fits by a configuration, ranks a draw's held-out events and returns the metric.
    groups: of the configuration, which the value depends on. num_draws: how many draws a trial
    averages by default. warmup: the reports within a draw before which no trial is pruned.
    """

    measure: Callable[["Problem", DictConfig, ValidationDraw, Report], float]
    groups: tuple[str, ...]
    num_draws: int
    warmup: int = 0


@dataclass(frozen=True)
class Problem:
    """What all trials of a study share. metric: such as ``ndcg@10``."""

    rows: TrainingRows
    overrides: tuple[str, ...]
    metric: str
    lists: ListCache

    @property
    def k(self) -> int:
        return int(self.metric.partition("@")[2])

    @cached_property
    def encoder(self) -> Any:
        return instantiate(configuration(self.overrides).text.encoder)

    @cached_property
    def text(self) -> Tensor:
        """Text vectors of the catalogue, float32 [N + 1, T]."""
        cache = EmbeddingCache(Path(configuration(self.overrides).text.cache_dir))
        vectors = cache.encode(self.encoder, self.rows.data.catalog.texts())
        return torch.nn.functional.pad(torch.from_numpy(vectors), (0, 0, 1, 0))

    @property
    def attributes(self) -> Tensor:
        return torch.from_numpy(self.rows.data.catalog.attributes)

    def configured(self, params: Params) -> DictConfig:
        return configuration([*self.overrides, *as_overrides(params)])


def configuration(overrides: tuple[str, ...] | list[str]) -> DictConfig:
    """``configs/train.yaml`` with LambdaMART's parameters beside it.

    Raises:
        InputError: on a mistyped override.
    """
    ours = [text for text in overrides if text.partition(".")[0] != "lambdamart"]
    check_overrides(CONFIG_DIR, "train", ours)
    added = [f"++lambdamart.{key}={value}" for key, value in DEFAULT_PARAMS.items()]
    with initialize_config_dir(str(CONFIG_DIR), version_base=HYDRA_VERSION):
        return compose("train", [*added, *overrides])


def measure_baseline(
    problem: Problem, cfg: DictConfig, draw: ValidationDraw, _: Report, name: str
) -> float:
    baseline = instantiate(cfg.baselines[name])(draw.train, draw.num_items)
    ranked = rank(baseline, draw.train, draw.targets.user_idx, problem.k, cfg.seed)
    return draw.metric(torch.from_numpy(ranked), problem.metric)


def measure_stage1(
    problem: Problem, cfg: DictConfig, draw: ValidationDraw, report: Report
) -> float:
    """As ``train_stage1``: the number of epochs is found within the draw's training events."""
    recipe = retrieval_recipe(cfg.retrieval, cfg.seed)
    factory, build_index = instantiate(cfg.trainer), instantiate(cfg.index).build

    def metric(model: TwoTowerEnsemble) -> float:
        retriever = build_retriever(model, draw.train, build_index, recipe.max_history)
        targets = draw.targets
        ranked = [
            retriever.retrieve(draw.train.pad(users), problem.k).item_idx
            for users in _batches(targets.user_idx)
        ]
        return draw.metric(torch.cat(ranked), problem.metric)

    watch = ReportValidation(lambda module: metric(on_cpu(module.model)), report)
    with TemporaryDirectory() as folder:
        inputs = (draw.train, problem.text, problem.attributes)
        run = Run(with_callback(factory, watch), Path(folder) / "search", resume=False)
        found = search(recipe, *inputs, run)
        run = Run(factory, Path(folder) / "refit", resume=False)
        model = fit_two_tower(
            found.recipe,
            found.epochs,
            *inputs,
            run,
            counting=found.counting,
        )
        return metric(model)


def measure_stage2(
    problem: Problem, cfg: DictConfig, draw: ValidationDraw, report: Report
) -> float:
    lists = reranking_lists(problem, cfg, draw)
    recipe = reranking_recipe(cfg.reranking, cfg.seed)
    reduction = TextReduction.fit(problem.text, recipe.relation_rank)

    def metric(model: CrossEncoder) -> float:
        extractor = lists.served.extractor
        reranker = Reranker(model, extractor, reduction, problem.text, TorchScorer(model))
        return _list_metric(problem, draw, lists.served, score_lists(reranker, lists.served))

    watch = ReportValidation(lambda module: metric(module.served_model), report, _QUARTERS)
    with TemporaryDirectory() as folder:
        run = Run(with_callback(instantiate(cfg.trainer), watch), Path(folder), resume=False)
        stage2, _, _ = fit_stage2(recipe, lists.folds, draw.train, reduction, problem.text, run)
    return metric(stage2.cross_encoder)


def measure_lambdamart(problem: Problem, cfg: DictConfig, draw: ValidationDraw, _: Report) -> float:
    lists = reranking_lists(problem, cfg, draw)
    params = OmegaConf.to_container(cfg.lambdamart)
    assert isinstance(params, dict)
    model = fit_lambdamart(lists.folds, cfg.seed, {str(k): v for k, v in params.items()})
    scores = score_lambdamart(model, lists.served.candidates, lists.served.all_signals())
    return _list_metric(problem, draw, lists.served, scores)


def reranking_lists(problem: Problem, cfg: DictConfig, draw: ValidationDraw) -> RerankingLists:
    """The draw's lists, from the cache where they are known."""
    counts = {
        "num_candidates": cfg.retrieval.num_candidates,
        "num_folds": cfg.reranking.num_folds,
        "relation_rank": cfg.reranking.relation_rank,
        "max_history": cfg.reranking.max_history,
        "seed": cfg.seed,
    }
    settings = {
        **counts,
        "retrieval": OmegaConf.to_container(cfg.retrieval, resolve=True),
        "index": OmegaConf.to_container(cfg.index, resolve=True),
        "text": problem.encoder.fingerprint,
        "rows": problem.rows.data.fingerprint,
        "draw": draw.fingerprint,
    }

    def make() -> RerankingLists:
        return make_lists(
            draw,
            problem.text,
            problem.attributes,
            retrieval_recipe(cfg.retrieval, cfg.seed),
            instantiate(cfg.index).build,
            instantiate(cfg.trainer),
            **counts,
        )

    reduction = TextReduction.fit(problem.text, cfg.reranking.relation_rank)
    reduced = reduction(problem.text)
    return problem.lists.get(settings, reduced, cfg.reranking.max_history, make)


def score_lists(reranker: Reranker, lists: CandidateLists) -> Tensor:
    """Scores float32 [n, K], as served; -inf at padding."""
    scores = []
    for rows in _batches(np.arange(len(lists))):
        own = torch.from_numpy(rows)
        history = lists.histories.pad(lists.user_idx[rows])
        candidates = lists.candidates[own].numpy()
        scores.append(reranker.scores(history, candidates, lists.tower_scores[own]))
    return torch.from_numpy(np.concatenate(scores))


def _list_metric(
    problem: Problem, draw: ValidationDraw, lists: CandidateLists, scores: Tensor
) -> float:
    _, ranked = top_k(scores, lists.candidates, problem.k)
    return draw.metric(ranked, problem.metric)


def _batches(rows: Any) -> list[Any]:
    return [rows[start : start + _BATCH_SIZE] for start in range(0, len(rows), _BATCH_SIZE)]


TARGETS: Mapping[str, Target] = {
    "als": Target(partial(measure_baseline, name="als"), ("baselines",), num_draws=3),
    "ease": Target(partial(measure_baseline, name="ease"), ("baselines",), num_draws=3),
    "lambdamart": Target(measure_lambdamart, ("lambdamart", "reranking", *_STAGE1), num_draws=1),
    "stage1": Target(measure_stage1, _STAGE1, num_draws=1, warmup=3),
    "stage2": Target(measure_stage2, ("reranking", *_STAGE1), num_draws=1, warmup=2),
}
