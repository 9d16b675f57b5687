"""How a trial stands while it runs, so that Optuna can end it early."""

import copy
from collections.abc import Callable
from typing import Any

import optuna
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar

from recsys.training.fit import TrainerFactory

REPORTS_PER_DRAW = 1000
"""More than a draw ever makes: the same step means the same moment in every trial."""

Report = Callable[[float, int], None]
"""Tells the value so far within a draw, and its step, 1..REPORTS_PER_DRAW - 1."""


class TrialProgress:
    """Reports a trial's mean over validation draws, and prunes it when it falls behind.

    Args:
        num_draws: of the whole trial. prune: False lets the trial run to its end in any case.
    """

    def __init__(self, trial: optuna.Trial, num_draws: int, *, prune: bool) -> None:
        self.trial = trial
        self.num_draws = num_draws
        self.prune = prune
        self.values: list[float] = []

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    def report(self, value: float, step: int) -> None:
        """Within a draw; raises TrialPruned to end the trial."""
        so_far = (sum(self.values) + value) / (len(self.values) + 1)
        self._tell(so_far, len(self.values) * REPORTS_PER_DRAW + step)

    def finish_draw(self, value: float) -> None:
        """At a draw's end; raises TrialPruned to end the trial before the next one."""
        self.values.append(value)
        if len(self.values) < self.num_draws:
            self._tell(self.mean, len(self.values) * REPORTS_PER_DRAW)

    def _tell(self, value: float, step: int) -> None:
        self.trial.report(value, step)
        if self.prune and self.trial.should_prune():
            raise optuna.TrialPruned


class ReportValidation(Callback):
    """Reports a metric of the module after each of Lightning's validations.

    Args:
        measure: of the module as it stands. share_of: None counts validations; a number reports
            when that part of the schedule is passed (4: at each quarter), which compares runs of
            different length.
    """

    def __init__(
        self,
        measure: Callable[[Any], float],
        report: Report,
        share_of: int | None = None,
    ) -> None:
        self.measure = measure
        self.report = report
        self.share_of = share_of
        self.step = 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = self.step + 1
        if self.share_of is not None:
            assert trainer.max_epochs is not None
            step = self.share_of * (trainer.current_epoch + 1) // trainer.max_epochs
        if step > self.step:
            self.step = step
            self.report(self.measure(pl_module), step)


def with_callback(factory: TrainerFactory, callback: Callback) -> TrainerFactory:
    """A factory whose trainers also call ``callback``, and draw no progress bar of their own."""

    def build(**settings: Any) -> pl.Trainer:
        callbacks = [c for c in settings["callbacks"] if not isinstance(c, RichProgressBar)]
        changed = {"callbacks": [*callbacks, callback], "enable_progress_bar": False}
        return factory(**settings | changed)

    return build


def on_cpu(module: Any) -> Any:
    """A copy on the CPU in evaluation mode, leaving the one that is being trained alone."""
    return copy.deepcopy(module).cpu().eval()
