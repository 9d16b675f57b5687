"""Early stopping remembers the best epoch, curves keep every epoch, also across a resumed fit."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from recsys.data.datamodule import HistoryDataModule, TrainingBatch, ValidationBatch
from recsys.data.histories import Histories
from recsys.data.prepare import hold_out_random
from recsys.training.callbacks import BestEpoch, Curves
from recsys.training.fit import fit


class Scripted(pl.LightningModule):
    """Its validation metric follows a script, one entry per validation; it records its batches."""

    def __init__(self, script: list[float], every: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.script = script
        self.every = every
        self.batches: dict[int, list[list[list[int]]]] = {}

    def training_step(self, batch: TrainingBatch, _: int) -> Tensor:
        self.batches.setdefault(self.current_epoch, []).append(batch.history.item_idx.tolist())
        loss = (self.weight - self.current_epoch).square().sum()
        size = len(batch.weights)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=size)
        return loss

    def validation_step(self, batch: ValidationBatch, _: int) -> None:
        score = self.script[self.current_epoch // self.every]
        self.log("val/score", score, batch_size=len(batch.targets))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(
    script: list[float],
    histories: Histories,
    folder: Path,
    *,
    epochs: int,
    every: int = 1,
    patience: int = 2,
    resume: bool = False,
) -> tuple[Scripted, BestEpoch, Curves]:
    module = Scripted(script, every)
    best, curves = BestEpoch("val/score", patience), Curves()
    remaining, held_out = hold_out_random(histories, 2, seed=0)
    fit(
        module,
        HistoryDataModule(remaining, held_out, batch_size=16, max_length=50, seed=3),
        partial(pl.Trainer, accelerator="cpu"),
        epochs=epochs,
        seed=3,
        folder=folder,
        resume=resume,
        callbacks=[best, curves],
        validate_every=every,
    )
    return module, best, curves


@pytest.mark.parametrize(
    ("script", "best", "last"),
    [
        ([0.1, 0.3, 0.2, 0.25, 0.9], 2, 4),  # two without improvement: 0.9 is never reached
        ([0.1, 0.2, 0.15, 0.3, 0.4], 5, 5),
        ([0.3, 0.3, 0.3, 0.3, 0.3], 1, 3),  # equal is no improvement
    ],
)
def test_the_best_epoch_is_remembered_and_patience_ends_training(
    script: list[float], best: int, last: int, planted: Histories, tmp_path: Path
) -> None:
    module, early_stopping, _ = trained(script, planted, tmp_path, epochs=5)
    assert early_stopping.best_epochs == best
    assert max(module.batches) + 1 == last
    assert float(early_stopping.best_score) == pytest.approx(script[best - 1])


def test_epochs_are_counted_and_not_validations(planted: Histories, tmp_path: Path) -> None:
    module, early_stopping, curves = trained(
        [0.1, 0.3, 0.2, 0.2], planted, tmp_path, epochs=12, every=3
    )
    assert early_stopping.best_epochs == 6
    assert len(module.batches) == 12
    scores = curves.frame()["val/score"]
    assert scores.index.tolist() == list(range(1, 13))
    assert scores.dropna().index.tolist() == [3, 6, 9, 12]
    np.testing.assert_allclose(scores.dropna(), [0.1, 0.3, 0.2, 0.2])


def test_a_metric_that_is_not_a_number_ends_training_and_is_not_the_best(
    planted: Histories, tmp_path: Path
) -> None:
    module, early_stopping, _ = trained([0.1, 0.2, math.nan, 0.9], planted, tmp_path, epochs=4)
    assert max(module.batches) + 1 == 3
    assert early_stopping.best_epochs == 2


def test_a_fit_that_was_stopped_early_goes_no_further_when_resumed(
    planted: Histories, tmp_path: Path
) -> None:
    script = [0.4, 0.3, 0.2, 0.9, 0.9]
    _, first, curves = trained(script, planted, tmp_path, epochs=5)
    module, resumed, resumed_curves = trained(script, planted, tmp_path, epochs=5, resume=True)
    assert not module.batches
    assert resumed.best_epochs == first.best_epochs == 1
    assert resumed_curves.frame().equals(curves.frame())
    assert float(resumed.best_score) == pytest.approx(0.4)


def test_every_epoch_has_an_order_of_its_own_also_inside_the_trainer(
    planted: Histories, tmp_path: Path
) -> None:
    module, _, _ = trained([0.1, 0.2, 0.3, 0.4], planted, tmp_path / "0", epochs=4)
    again, _, _ = trained([0.1, 0.2, 0.3, 0.4], planted, tmp_path / "1", epochs=4)
    assert module.batches == again.batches
    orders = list(module.batches.values())
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])
    users = [sorted(tuple(row) for batch in epoch for row in batch) for epoch in orders]
    assert all(len(epoch) == planted.num_users for epoch in users)
    assert all(epoch == users[0] for epoch in users)
