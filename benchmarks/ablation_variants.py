"""The product with one part taken away, and the validation rows that it is judged by."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.training import Recipe
from recsys.data.histories import Histories
from recsys.data.prepare import TrainingData, hold_out_random
from recsys.evaluation import Targets
from recsys.training.item_regression import ItemRegression

NUM_HELD_OUT = 10
"""Training rows per user, at most half of them, that the variants are judged by."""
LEAVE_LAST = "leave_last"
FULL = "full model"
TEXT_SHUFFLED = "text shuffled among items"
WITHOUT_TEXT = "without text"


@dataclass(frozen=True)
class Variant:
    """All that training depends on. text: float32 [N + 1, T]."""

    recipe: Recipe
    data: TrainingData
    text: Tensor


def carve_validation(data: TrainingData, seed: int) -> tuple[TrainingData, Targets]:
    """Training data without some rows of each user, and these rows as targets.

    They are carved out as the split carves the test rows: each user's latest one where that holds
    out the latest, and random ones otherwise. The split of the data that remains has neither
    training nor test rows: what trains on it has ``train`` alone to go by, and no row to tune on.
    """
    if data.split.name == LEAVE_LAST:
        remaining, held_out = hold_out_latest(data.train)
        fingerprint = f"{data.fingerprint}, less the latest row of each user"
    else:
        remaining, held_out = hold_out_random(data.train, NUM_HELD_OUT, seed)
        fingerprint = f"{data.fingerprint}, less {NUM_HELD_OUT} rows per user, seed {seed}"
    split = replace(data.split, train=data.split.train[:0], test=data.split.test[:0])
    carved = replace(data, split=split, train=remaining, fingerprint=fingerprint)
    return carved, held_out_targets(held_out)


def protocol(data: TrainingData) -> str:
    """What ``carve_validation`` does, in words."""
    rows = (
        "the latest training row of each user who has three or more is"
        if data.split.name == LEAVE_LAST
        else f"{NUM_HELD_OUT} random training rows per user, at most half of them, are"
    )
    return f"{rows} held out of training; no test row is read"


def hold_out_latest(histories: Histories) -> tuple[Histories, Histories]:
    """Each user's latest event, of users with three or more: what remains, and what is held out."""
    length = histories.lengths[histories.user_idx]
    held_out = (histories.ranks_from_end == 0) & (length >= 3)
    return histories.select(~held_out), histories.select(held_out)


def held_out_targets(held_out: Histories) -> Targets:
    """Held-out events as targets, a row per user who has any."""
    users = np.flatnonzero(held_out.lengths)
    return Targets(
        user_idx=users,
        rows=torch.from_numpy(np.searchsorted(users, held_out.user_idx)),
        items=torch.from_numpy(held_out.item_idx),
        num_relevant=torch.from_numpy(held_out.lengths[users]),
    )


def texts(text: Tensor, seed: int) -> dict[str, Tensor]:
    """Text vectors float32 [N + 1, T] dealt out to other items, and zeros; row 0 stays zeros.

    Shuffled vectors have the same statistics, and tell an item from others as well as before: what
    they lack is what they mean.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = text.clone()
    shuffled[1:] = text[1 + torch.randperm(len(text) - 1, generator=generator)]
    return {TEXT_SHUFFLED: shuffled, WITHOUT_TEXT: torch.zeros_like(text)}


def stage1_variants(full: Variant, seed: int) -> dict[str, Variant]:
    """Stage 1 less one part each; a part that the recipe does not have is no variant."""
    others = {name: replace(full, text=text) for name, text in texts(full.text, seed).items()}
    variants = {FULL: full, **others}
    for name, weights in (
        ("without sessions", {"session_weight": 0.0}),
        ("without content similarity", {"content_weight": 0.0}),
    ):
        if any(isinstance(goal, ItemRegression) for goal in full.recipe.retrieval.objectives):
            variants[name] = replace(full, recipe=_with_regression(full.recipe, **weights))
    if full.data.train.context.shape[1]:
        variants["without user attributes"] = replace(full, data=without_attributes(full.data))
    return variants


def without_attributes(data: TrainingData) -> TrainingData:
    """The same rows, with nothing known of the users."""
    nothing = data.train.context[:, :0]
    train = replace(data.train, context=nothing)
    fingerprint = f"{data.fingerprint}, no user attributes"
    return replace(data, train=train, user_attributes=[], user_frame=None, fingerprint=fingerprint)


def stage2_recipes(recipe: Recipe) -> dict[str, Recipe]:
    """Stage 2 with one setting changed each; all learn from the same lists."""
    assert recipe.reranking is not None
    reranking = recipe.reranking

    def network(**changes: Any) -> Recipe:
        encoder = {**reranking.cross_encoder, **changes}
        return replace(recipe, reranking=replace(reranking, cross_encoder=encoder))

    unaveraged = replace(reranking, average_share=0.0)
    return {
        "64 wide, 4 heads": network(dim=64, num_heads=4),
        "without attention to the history": network(num_layers=0),
        "without products of texts": network(products=False),
        "without averaged weights": replace(recipe, reranking=unaveraged),
    }


def _with_regression(recipe: Recipe, **changes: float) -> Recipe:
    objectives = [
        replace(goal, **changes) if isinstance(goal, ItemRegression) else goal  # type: ignore[arg-type]
        for goal in recipe.retrieval.objectives
    ]
    return replace(recipe, retrieval=replace(recipe.retrieval, objectives=objectives))
