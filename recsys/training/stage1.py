"""Training stage 1 from a recipe: find the number of epochs, then fit on all training events."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor

from recsys.artifact import build_two_tower
from recsys.core.phases import Phases
from recsys.core.threads import threads_used
from recsys.data.datamodule import HistoryDataModule
from recsys.data.histories import Histories
from recsys.data.prepare import hold_out_random
from recsys.data.validation import hold_out_like
from recsys.features import ContentFeatures, content_features
from recsys.index import CandidateIndex
from recsys.index.exclusions import Embeddings
from recsys.index.two_pass import QuerySample
from recsys.models.history_weights import ALL_ALIKE, EventCounting
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.retriever import Retriever
from recsys.training.callbacks import BestEpoch, Curves
from recsys.training.content_map import fix_items
from recsys.training.event_counting import choose_counting
from recsys.training.fit import TrainerFactory, fit
from recsys.training.item_regression import ItemRegression
from recsys.training.query_sample import sample_queries
from recsys.training.regression_settings import choose_regression
from recsys.training.retrieval import Objective, RetrievalModule
from recsys.training.retrieval_recipe import RetrievalRecipe
from recsys.training.spectral_filter import SpectralFilter
from recsys.training.tower_weights import choose_weights
from recsys.training.validation_scores import Validation
from recsys.training.workers import Workers

log = logging.getLogger(__name__)

CALIBRATION_USERS = 4096
"""Enough users to estimate the variance of scores; more would only cost memory."""

VALIDATION_FRACTION = 0.1
"""Of the training events, where the latest of all users are held out."""
_MOST_VALIDATED = 4_000
"""Users whose held-out events are scored against the whole catalogue in each validation."""
_FEWEST_VALIDATED = 20
"""Users; of fewer nothing can be told, and random events of everybody are held out instead."""

BuildIndex = Callable[[Embeddings, QuerySample], CandidateIndex]


@dataclass(frozen=True)
class Run:
    """Where and how to run Lightning.

    folder: for checkpoints. resume: go on from them. workers: for fits that do not need each other.
    phases: are told of what is done; by default nobody is.
    """

    trainer_factory: TrainerFactory
    folder: Path
    resume: bool
    logger_factory: Callable[[str], Logger] | None = None
    workers: Workers = field(default_factory=Workers)
    phases: Phases = field(default_factory=Phases)

    def apart(self, name: str = "") -> "Run":
        """In a folder below, for fits without a log that another process may make."""
        return Run(self.trainer_factory, self.folder / name, self.resume)

    def logger(self, name: str) -> Logger | None:
        return None if self.logger_factory is None else self.logger_factory(name)


class Found(NamedTuple):
    """What validation chose.

    epochs: with the best recall@100. counting: of events in queries. curves: to the best epoch.
    recipe: with what its objectives left to be chosen.
    """

    epochs: int
    counting: EventCounting
    curves: Curves
    recipe: RetrievalRecipe


def search(
    recipe: RetrievalRecipe,
    train: Histories,
    text: Tensor,
    attributes: Tensor,
    run: Run,
    split: str = "random",
) -> Found:
    """Choose by validation events, which are carved out of ``train`` and not trained on.

    First what a spectral filter leaves open, then the number of epochs, how much later events count
    more, and those of more weight, the settings of a regression, and how much the towers count.

    Args:
        split: in whose way they are carved out, see ``hold_out_like``.
    """
    remaining, held_out = hold_out_like(
        split, train, recipe.num_validation, VALIDATION_FRACTION, recipe.seed
    )
    if np.count_nonzero(held_out.lengths) < _FEWEST_VALIDATED:
        remaining, held_out = hold_out_random(train, recipe.num_validation, recipe.seed)
    held_out = _of_few_users(held_out, recipe.seed)
    early_stopping, curves = BestEpoch("val/recall@100", recipe.patience), Curves()
    content = _content(remaining, text, attributes)
    recipe = recipe.settled(remaining, held_out, len(text) - 1)
    module, datamodule = _assemble(recipe, remaining, held_out, content, recipe.seed)
    fit(
        module,
        datamodule,
        run.trainer_factory,
        epochs=recipe.epochs,
        seed=recipe.seed,
        folder=run.folder / "search",
        resume=run.resume,
        logger=run.logger("stage1"),
        callbacks=[early_stopping, curves],
        validate_every=min(recipe.validate_every, recipe.epochs),
        checkpoint_every=recipe.validate_every,
    )
    log.info(
        "stage 1: best validation recall@100 %.4f after %d epochs",
        float(early_stopping.best_score),
        early_stopping.best_epochs,
    )
    model = module.cpu().eval().model
    validation = Validation.of(remaining, held_out, recipe.max_history, recipe.seed)
    counting = choose_counting(model, validation)
    # Products of large matrices, while the processes for the folds have nothing to do.
    with threads_used(run.workers.number * run.workers.threads):
        recipe = choose_regression(recipe, model, content, validation)
    # Last, of towers as they will be: a half-life changes what each of them is worth.
    if recipe.choose_weights:
        recipe = replace(recipe, weights=choose_weights(model, validation))
    return Found(max(early_stopping.best_epochs, 1), counting, curves, recipe)


def _of_few_users(held_out: Histories, seed: int) -> Histories:
    """Where there are many, the held-out events of ``_MOST_VALIDATED`` random users alone."""
    users = np.flatnonzero(held_out.lengths)
    if len(users) <= _MOST_VALIDATED:
        return held_out
    drawn = np.random.default_rng([seed, 4]).choice(users, _MOST_VALIDATED, replace=False)
    return held_out.select(np.isin(held_out.user_idx, drawn))


def fit_two_tower(
    recipe: RetrievalRecipe,
    epochs: int,
    train: Histories,
    text: Tensor,
    attributes: Tensor,
    run: Run,
    seed_offset: int = 0,
    counting: EventCounting = ALL_ALIKE,
) -> TwoTowerEnsemble:
    """Fit on all given events, without validation.

    Args:
        recipe, epochs, counting: as ``search`` has found them.
    """
    seed = recipe.seed + seed_offset
    content = _content(train, text, attributes)
    module, datamodule = _assemble(recipe, train, None, content, seed)
    if recipe.is_learned:
        fit(
            module,
            datamodule,
            run.trainer_factory,
            epochs=epochs,
            seed=seed,
            folder=run.folder,
            resume=run.resume,
            checkpoint_every=20,
        )
    module.cpu().eval()
    fix_items(module.model, content, module.item_counts > 0, recipe.content_map)
    module.model.counting = counting
    module.standardize()
    return module.model


def fold_retriever(
    train: Histories,
    fold: int,
    *,
    recipe: RetrievalRecipe,
    epochs: int,
    counting: EventCounting,
    text: Tensor,
    attributes: Tensor,
    build_index: BuildIndex,
    run: Run,
) -> Retriever:
    """The stage 1 of a fold, trained on the events outside of it."""
    # A seed of its own per fold: the lists shall not share one initialisation's whims.
    model = fit_two_tower(
        recipe,
        epochs,
        train,
        text,
        attributes,
        run.apart(f"fold{fold}"),
        1 + fold,
        counting,
    )
    return build_retriever(model, train, build_index, recipe.max_history)


def build_retriever(
    model: TwoTowerEnsemble, train: Histories, build_index: BuildIndex, max_history: int
) -> Retriever:
    """Index the model's candidate embeddings, for queries such as those of ``train``."""
    with torch.inference_mode():
        embeddings = model.all_candidates().float().numpy()
    index = build_index(embeddings, partial(sample_queries, model, train, max_history))
    return Retriever(model, index, max_history)


def _content(train: Histories, text: Tensor, attributes: Tensor) -> ContentFeatures:
    item_counts = torch.from_numpy(train.item_counts(len(text) - 1))
    return content_features(text, attributes, item_counts)


def _assemble(
    recipe: RetrievalRecipe,
    train: Histories,
    held_out: Histories | None,
    content: ContentFeatures,
    seed: int,
) -> tuple[RetrievalModule, HistoryDataModule]:
    item_counts = torch.from_numpy(train.item_counts(len(content.values) - 1))
    torch.manual_seed(seed)
    # To project zeros would cost as much as to project vectors.
    unread = {} if torch.count_nonzero(content.values) else {"use_content": False}
    towers = [{**tower, **unread} for tower in recipe.towers]
    model = build_two_tower(towers, content, train.context.shape[1])
    model.weights = recipe.weights or model.weights
    for tower, objective in zip(model.members, recipe.objectives, strict=True):
        if isinstance(objective, ItemRegression | SpectralFilter):
            objective.fit(tower, train, content)
    datamodule = HistoryDataModule(
        train, held_out, batch_size=recipe.batch_size, max_length=recipe.max_history, seed=seed
    )
    calibration = train.pad(datamodule.train_users[:CALIBRATION_USERS], recipe.max_history)
    module = RetrievalModule(
        model,
        [goal if isinstance(goal, Objective) else None for goal in recipe.objectives],
        item_counts,
        calibration,
        torch.from_numpy(train.context[0]),
        total_steps=recipe.epochs * datamodule.steps_per_epoch,
    )
    return module, datamodule
