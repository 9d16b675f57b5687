"""One way to run Lightning: resumable, reproducible, quiet off a terminal."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
)
from pytorch_lightning.loggers import Logger

from recsys.errors import InputError
from recsys.training.callbacks import Reproducible, Throughput
from recsys.training.run_folder import LAST_CHECKPOINT

TrainerFactory = Callable[..., pl.Trainer]


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """A run fits a dozen models; what Lightning tells of each would drown the lines that matter."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@_quiet_lightning()
def fit(
    module: pl.LightningModule,
    datamodule: pl.LightningDataModule,
    trainer_factory: TrainerFactory,
    *,
    epochs: int,
    seed: int,
    folder: Path,
    resume: bool,
    logger: Logger | None = None,
    callbacks: Iterable[Callback] = (),
    validate_every: int = 1,
    checkpoint_every: int = 1,
    gradient_clip: float | None = None,
) -> None:
    """Train ``module`` in place for at most ``epochs`` epochs.

    Args:
        seed: of the order of rows and of dropout, not negative.
        folder: where ``last.ckpt`` is kept. With ``resume`` training goes on from it; a fit that
            had finished is only loaded. Without, a stale one is removed first.
        validate_every, checkpoint_every: in epochs. gradient_clip: largest norm of a gradient.

    Raises:
        InputError: when the weights are no numbers at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = folder / LAST_CHECKPOINT
    if not resume:
        last.unlink(missing_ok=True)
    # Bars of several processes would be drawn over each other.
    on_terminal = sys.stdout.isatty() and parent_process() is None
    all_callbacks: list[Callback] = [
        Reproducible(seed),
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
        all_callbacks += [LearningRateMonitor(logging_interval="epoch"), Throughput()]
    trainer = trainer_factory(
        max_epochs=epochs,
        callbacks=all_callbacks,
        logger=logger or False,
        gradient_clip_val=gradient_clip,
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
        # Not ours to mend: Lightning on a newer torch, and its empty validation loader.
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*Total length of `list` across ranks is zero.*")
        trainer.fit(
            module,
            datamodule=datamodule,
            ckpt_path=last if last.exists() else None,
            weights_only=True,
        )
    if not all(parameter.isfinite().all() for parameter in module.parameters()):
        raise InputError(
            "training to end with finite weights",
            "weights that are no numbers",
            "lower the learning rate",
        )
    trainer.save_checkpoint(last, weights_only=False)
    module.eval()
