"""Training stage 2 from a recipe: out-of-fold lists, then the cross-encoder on them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from recsys.artifact import ModelConfig, Stage2, build_cross_encoder
from recsys.data.histories import Histories
from recsys.training.callbacks import BestEpoch, Curves
from recsys.training.fit import fit
from recsys.training.folds import CandidateLists, build_extractor
from recsys.training.reranking import ListDataModule, RerankingModule
from recsys.training.stage1 import Run

log = logging.getLogger(__name__)

MONITOR = "val/ndcg@100"
"""Steadier than ndcg@10 over the few users that validate, and it still weighs the top most."""


@dataclass(frozen=True)
class RerankingRecipe:
    """All that training a stage 2 depends on besides its lists.

    max_history: the latest events that the cross-encoder attends to. average_decay: of the moving
    average of the weights, per step. patience: in epochs.
    """

    cross_encoder: ModelConfig
    max_history: int
    batch_size: int
    epochs: int
    patience: int
    learning_rate: float
    weight_decay: float
    average_decay: float
    seed: int


def fit_stage2(
    recipe: RerankingRecipe,
    lists: Sequence[CandidateLists],
    train: Histories,
    text: Tensor,
    num_towers: int,
    run: Run,
) -> tuple[Stage2, Curves]:
    """Train on out-of-fold lists; the best epoch is chosen on the lists of one user in ten.

    Args:
        train: all training events: what signals are computed from when serving.
    """
    torch.manual_seed(recipe.seed)
    datamodule = ListDataModule(
        lists, batch_size=recipe.batch_size, max_history=recipe.max_history, seed=recipe.seed
    )
    module = RerankingModule(
        build_cross_encoder(recipe.cross_encoder, text, num_towers),
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        average_decay=recipe.average_decay,
        total_steps=recipe.epochs * datamodule.steps_per_epoch,
        seed=recipe.seed,
    )
    folder, curves = run.folder / "rerank", Curves()
    early_stopping = BestEpoch(MONITOR, recipe.patience)
    best = ModelCheckpoint(
        dirpath=folder,
        filename="best",
        monitor=MONITOR,
        mode="max",
        save_weights_only=True,
        enable_version_counter=False,
    )
    fit(
        module,
        datamodule,
        run.trainer_factory,
        epochs=recipe.epochs,
        folder=folder,
        resume=run.resume,
        logger=run.logger("stage2"),
        callbacks=[early_stopping, curves, best],
        gradient_clip=1.0,
    )
    log.info(
        "stage 2: best validation ndcg@100 %.4f after %d epochs",
        float(early_stopping.best_score),
        early_stopping.best_epochs,
    )
    weights = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)
    module.cpu().load_state_dict(weights["state_dict"])
    extractor = build_extractor(train, text)
    return Stage2(module.served_model, extractor, recipe.max_history), curves
