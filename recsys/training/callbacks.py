"""Lightning callbacks: early stopping with memory, curves for the report, throughput."""

import time
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping


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
        before = float(self.best_score)
        super().on_validation_end(trainer, pl_module)
        # Not by wait_count, which stays 0 also where a metric is not a number.
        if float(self.best_score) > before:
            self.best_epochs = trainer.current_epoch + 1

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"best_epochs": self.best_epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self.best_epochs = state.pop("best_epochs")
        super().load_state_dict(state)


class Curves(Callback):
    """Keeps each epoch's losses and validation metrics; a resumed fit keeps the earlier ones."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        fresh = trainer.current_epoch % (trainer.check_val_every_n_epoch or 1)
        validated = fresh == (trainer.check_val_every_n_epoch or 1) - 1
        self.rows[trainer.current_epoch + 1] = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("train/") or (name.startswith("val/") and validated)
        }

    def frame(self) -> pd.DataFrame:
        """One row per epoch (index, from 1), one column per metric; NaN where not measured."""
        frame = pd.DataFrame.from_dict(self.rows, orient="index")
        return frame.rename_axis("epoch")

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class Reproducible(Callback):
    """Makes the order of rows depend on (seed, epoch), and dropout on (seed, epoch, step), alone.

    So a resumed run repeats the uninterrupted one. Seeding once per epoch would not do: whether the
    data loader has drawn from the generator by then differs after a resume.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        trainer.datamodule.start_epoch(trainer.current_epoch)  # type: ignore[attr-defined]

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        del batch
        mixed = np.random.SeedSequence([self.seed, trainer.current_epoch, batch_idx])
        seed = int(mixed.generate_state(1, np.uint64)[0] >> np.uint64(1))
        # Seeding all devices keeps, for each that is not in use yet, a call and its stack trace.
        on_cpu = module.device.type == "cpu"
        (torch.default_generator.manual_seed if on_cpu else torch.manual_seed)(seed)


class Throughput(Callback):
    """Logs the rows (users or lists) trained per second of each epoch."""

    def __init__(self) -> None:
        self.started = 0.0
        self.rows = 0

    def on_train_epoch_start(self, *_: Any) -> None:
        self.started, self.rows = time.perf_counter(), 0

    def on_train_batch_end(self, *arguments: Any, **_: Any) -> None:
        batch = arguments[3]
        first = batch[0]
        self.rows += len(first if not isinstance(first, tuple) else first[0])

    def on_train_epoch_end(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        seconds = time.perf_counter() - self.started
        if trainer.logger is not None:
            metrics = {"throughput/rows_per_second": self.rows / seconds}
            trainer.logger.log_metrics(metrics, step=trainer.global_step)
