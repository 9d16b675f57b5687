"""Training stage 2 from a recipe: out-of-fold lists, then the cross-encoder on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recsys.artifact import ModelConfig, Stage2, build_cross_encoder
from recsys.data.histories import Histories
from recsys.models.cross_encoder import CrossEncoder
from recsys.signals.list_signals import num_relative
from recsys.text.reduction import TextReduction
from recsys.training.callbacks import Curves
from recsys.training.fit import fit
from recsys.training.folds import CandidateLists, build_extractor
from recsys.training.gain import ListGain, gain_on_kept_lists
from recsys.training.reranking import LabelledBatch, ListDataModule, RerankingModule
from recsys.training.stage1 import Run


@dataclass(frozen=True)
class RerankingRecipe:
    """All that training a stage 2 depends on besides its lists.

    max_history: the latest events that the cross-encoder attends to. relation_rank: to how many
    dimensions text vectors and item graphs are brought. list_length: see ``ListDataModule``.
    average_share: the moving average of the weights reaches back over about this share of all
    training steps. max_lists: see ``out_of_fold_lists``; None: no matter how many.
    """

    cross_encoder: ModelConfig
    max_history: int
    relation_rank: int
    list_length: int
    batch_size: int
    epochs: int
    learning_rate: float
    weight_decay: float
    average_share: float
    seed: int
    max_lists: int | None = None


def encoder_config(recipe: RerankingRecipe, train: Histories) -> dict[str, Any]:
    """How the cross-encoder is built: it reads strengths where the training events differ in them.

    A recipe that says whether it does is right.
    """
    found = {} if train.are_alike else {"strengths": True}
    return {**found, **recipe.cross_encoder}


def fit_stage2(
    recipe: RerankingRecipe,
    lists: Sequence[CandidateLists],
    train: Histories,
    reduction: TextReduction,
    text: Tensor,
    run: Run,
) -> tuple[Stage2, Curves, ListGain]:
    """Train on out-of-fold lists for a fixed number of epochs.

    The lists of one user in ten are kept aside and only watched: they tell about new users, while
    most requests come from users that stage 2 has learned from, for whom it goes on improving when
    those no longer do.

    Args:
        lists: of text that ``reduction`` makes of ``text``, float32 [N + 1, T].
        train: all training events: what signals are computed from when serving.
    """
    torch.manual_seed(recipe.seed)
    reduced = reduction(text)
    datamodule = ListDataModule(
        lists,
        reduced,
        batch_size=recipe.batch_size,
        list_length=recipe.list_length,
        seed=recipe.seed,
    )
    num_towers = lists[0].tower_scores.shape[2]
    model = build_cross_encoder(encoder_config(recipe, train), num_towers, reduced.shape[1])
    _fit_scales(model, datamodule.example(), num_towers)
    module = RerankingModule(
        model,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        average_share=recipe.average_share,
        total_steps=recipe.epochs * datamodule.steps_per_epoch,
    )
    curves = Curves()
    fit(
        module,
        datamodule,
        run.trainer_factory,
        epochs=recipe.epochs,
        seed=recipe.seed,
        folder=run.folder / "rerank",
        resume=run.resume,
        logger=run.logger("stage2"),
        callbacks=[curves],
        gradient_clip=1.0,
    )
    module.cpu()
    gain = gain_on_kept_lists(module.served_model, datamodule)
    extractor = build_extractor(train, reduced, recipe.max_history)
    return Stage2(module.served_model, extractor, reduction), curves, gain


def _fit_scales(model: CrossEncoder, example: LabelledBatch, num_towers: int) -> None:
    inputs, mask = example.inputs, example.mask
    events = inputs.history_mask[:, 1:]
    left, right = inputs.candidate_relations, inputs.history_relations[:, 1:]
    by_relation = [left @ (right * block).transpose(1, 2) for block in inputs.blocks.T]
    related = torch.stack(by_relation, dim=3)
    model.fit_statistics(
        inputs.signals[mask],
        inputs.history_age[:, 1:][events],
        related[mask[:, :, None] & events[:, None]],
        num_relative(num_towers),
        inputs.history_strength[:, 1:][events],
    )
