"""What a trial may see: training rows, and validation events carved out of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from torch import Tensor

from benchmarks.ablation_variants import NUM_HELD_OUT, held_out_targets
from benchmarks.harness import mean_metrics, without_test_rows
from recsys.data.histories import Histories
from recsys.data.prepare import TrainingData, hold_out_random
from recsys.evaluation import Targets


@dataclass(frozen=True)
class TrainingRows:
    """Training data whose test rows are gone, so that nothing behind it can look at them.

    Raises:
        ValueError: when there are test rows; ``TrainingRows.of`` drops them.
    """

    data: TrainingData

    def __post_init__(self) -> None:
        if len(self.data.split.test):
            raise ValueError(
                f"expected no test rows; found {len(self.data.split.test):,}; "
                "drop them with TrainingRows.of(data)"
            )

    @classmethod
    def of(cls, data: TrainingData) -> "TrainingRows":
        return cls(without_test_rows(data))

    @property
    def num_items(self) -> int:
        return len(self.data.items)

    def draws(self, number: int, seed: int) -> list["ValidationDraw"]:
        """Independent random draws of validation events, the same for the same seed."""
        seeds = np.random.SeedSequence([seed, NUM_HELD_OUT]).generate_state(number)
        return [self._draw(int(own)) for own in seeds]

    def _draw(self, seed: int) -> "ValidationDraw":
        train, held_out = hold_out_random(self.data.train, NUM_HELD_OUT, seed)
        return ValidationDraw(train, held_out, self.num_items)


@dataclass(frozen=True)
class ValidationDraw:
    """train: the events to fit on. held_out: those to rank, of the same users, in no way seen."""

    train: Histories
    held_out: Histories
    num_items: int

    @property
    def targets(self) -> Targets:
        """The held-out events as evaluation takes them; users without any are left out."""
        return held_out_targets(self.held_out)

    def metric(self, ranked: Tensor, name: str) -> float:
        """A metric such as ``ndcg@10`` of lists int64 [U, K], one per row of ``targets``."""
        return mean_metrics(ranked, self.targets, self.num_items, [name])[name]

    @property
    def fingerprint(self) -> str:
        """Changes when any event, or its side, does."""
        return fingerprint([self.train, self.held_out])


def fingerprint(parts: Sequence[Histories]) -> str:
    digest = hashlib.sha256()
    for histories in parts:
        for field in fields(histories):
            digest.update(np.ascontiguousarray(getattr(histories, field.name)).tobytes())
    return digest.hexdigest()
