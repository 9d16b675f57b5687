"""Wiring of histories into Lightning: batches of padded histories, nothing else."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from recsys.data.histories import Histories
from recsys.errors import InputError
from recsys.schema import HistoryBatch


class TrainingBatch(NamedTuple):
    """history: of which some events are seen and others predicted. weights: float32 [B, L], how
    much each event counts, 1 on average, 0 where padded.
    """

    history: HistoryBatch
    weights: Tensor


class ValidationBatch(NamedTuple):
    """history: the visible events. targets: int64 [B, T] held-out items, 0 where padded. weights:
    float32 [B, T], how much each counts, 0 where padded.
    """

    history: HistoryBatch
    targets: Tensor
    weights: Tensor


class ShuffledBatches(Sampler[list[int]]):
    """Batches of row numbers in an order that depends on (seed, epoch) alone.

    A resumed run therefore sees the batches of the uninterrupted one. ``start_epoch`` must be
    called before each epoch; Lightning's own hook for that reaches no batch sampler, and counts
    otherwise after a resume.
    """

    def __init__(self, num_rows: int, batch_size: int, seed: int) -> None:
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def start_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_rows // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_rows)
        for start in range(0, self.num_rows, self.batch_size):
            yield order[start : start + self.batch_size].tolist()


class HistoryDataModule(pl.LightningDataModule):
    """Users with at least two events for training; users with held-out events for validation.

    Args:
        train: the events that the model may see. held_out: validation events, or None to train
            on everything without validation.
        max_length: the latest events kept of a history.

    Raises:
        InputError: when no user has two events that the model may see.
    """

    def __init__(
        self,
        train: Histories,
        held_out: Histories | None,
        *,
        batch_size: int,
        max_length: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.train_histories = train
        self.held_out = held_out
        self.batch_size = batch_size
        self.max_length = max_length
        # A single event can't be both seen and predicted.
        self.train_users = np.flatnonzero(train.lengths >= 2)
        if not len(self.train_users):
            raise InputError(
                "a user with two training events left, validation or fold held out",
                f"at most {train.lengths.max(initial=0)} per user",
                "give more interactions per user, or hold out fewer (data.num_test, "
                "data.test_fraction)",
            )
        self.batches = ShuffledBatches(len(self.train_users), batch_size, seed)

    def start_epoch(self, epoch: int) -> None:
        """Choose the epoch's order of users."""
        self.batches.start_epoch(epoch)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.batches)

    def train_dataloader(self) -> DataLoader[int]:
        def collate(rows: list[int]) -> TrainingBatch:
            users = np.asarray(rows)
            history = self.train_histories.pad(users, self.max_length)
            return TrainingBatch(history, _weights(history))

        users = _UserIndex(self.train_users)
        return DataLoader(users, batch_sampler=self.batches, collate_fn=collate)

    def val_dataloader(self) -> DataLoader[int] | list[DataLoader[int]]:
        held_out = self.held_out
        if held_out is None:
            return []

        def collate(rows: list[int]) -> ValidationBatch:
            users = np.asarray(rows)
            history = self.train_histories.pad(users, self.max_length)
            targets = held_out.pad(users)
            return ValidationBatch(history, targets.item_idx, _weights(targets))

        users = np.flatnonzero(held_out.lengths)
        return DataLoader(_UserIndex(users), batch_size=self.batch_size * 4, collate_fn=collate)


def _weights(history: HistoryBatch) -> Tensor:
    """How much events count, 1 for each where they are alike: float32 [B, L], 0 where padded."""
    return history.mask.float() if history.weights is None else history.weights


class _UserIndex(torch.utils.data.Dataset[int]):
    def __init__(self, user_idx: NDArray[np.int64]) -> None:
        self.user_idx = user_idx

    def __len__(self) -> int:
        return len(self.user_idx)

    def __getitem__(self, row: int) -> int:
        return int(self.user_idx[row])
