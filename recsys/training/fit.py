"""One way to run Lightning: resumable, reproducible, quiet off a terminal."""

import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
)
from pytorch_lightning.loggers import Logger

TrainerFactory = Callable[..., pl.Trainer]
LAST_CHECKPOINT = "last.ckpt"


class BestEpoch(EarlyStopping):
    """Early stopping that also remembers how many epochs the best model had been trained for."""

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__(
            monitor=monitor, mode="max", patience=patience, check_on_train_epoch_end=False
        )
        self.best_epochs = 0

    def on_train_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        # A resumed fit that had already been stopped must not train any further.
        trainer.should_stop = self.wait_count >= self.patience

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if self.wait_count == 0:
            self.best_epochs = trainer.current_epoch + 1

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"best_epochs": self.best_epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self.best_epochs = state.pop("best_epochs")
        super().load_state_dict(state)


def fit(
    module: pl.LightningModule,
    datamodule: pl.LightningDataModule,
    trainer_factory: TrainerFactory,
    *,
    epochs: int,
    folder: Path,
    resume: bool,
    logger: Logger | None = None,
    callbacks: Iterable[Callback] = (),
    validate_every: int = 1,
    checkpoint_every: int = 1,
) -> None:
    """Train ``module`` in place for at most ``epochs`` epochs.

    Args:
        folder: where ``last.ckpt`` is kept. With ``resume`` training goes on from it; a fit that
            had finished is only loaded. Without, a stale one is removed first.
        validate_every, checkpoint_every: in epochs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = folder / LAST_CHECKPOINT
    if not resume:
        last.unlink(missing_ok=True)
    on_terminal = sys.stdout.isatty()
    all_callbacks: list[Callback] = [
        *callbacks,
        ModelCheckpoint(
            dirpath=folder,
            filename="last",
            every_n_epochs=checkpoint_every,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
    ]
    if on_terminal:
        all_callbacks.append(RichProgressBar())
    if logger is not None:
        all_callbacks.append(LearningRateMonitor(logging_interval="epoch"))
    trainer = trainer_factory(
        max_epochs=epochs,
        callbacks=all_callbacks,
        logger=logger or False,
        check_val_every_n_epoch=validate_every,
        num_sanity_val_steps=0,
        enable_progress_bar=on_terminal,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    with warnings.catch_warnings():
        # Batches are index look-ups in memory: worker processes would only slow them down.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists.*")
        trainer.fit(module, datamodule=datamodule, ckpt_path=last if last.exists() else None)
    trainer.save_checkpoint(last)
    module.eval()
