"""Batches: each eligible user once per epoch, in an order that only seed and epoch decide."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.data.datamodule import HistoryDataModule, ShuffledBatches
from recsys.data.histories import Histories
from recsys.errors import InputError


def histories() -> Histories:
    """User u has u events; so user 1 has too few to be trained on."""
    users = np.repeat(np.arange(1, 8), np.arange(1, 8))
    return Histories.from_indices(users, np.arange(1, 29), np.arange(28), 7)


def test_each_user_with_two_events_comes_once_per_epoch() -> None:
    module = HistoryDataModule(histories(), None, batch_size=2, max_length=50, seed=0)
    lengths = [int(n) for batch in module.train_dataloader() for n in batch.history.mask.sum(dim=1)]
    assert sorted(lengths) == [2, 3, 4, 5, 6, 7]
    assert len(module.train_dataloader()) == module.steps_per_epoch == 3


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        batches = ShuffledBatches(50, 8, seed)
        batches.start_epoch(epoch)
        return list(batches)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


def test_a_new_epoch_is_a_new_order_also_through_the_loader() -> None:
    module = HistoryDataModule(histories(), None, batch_size=1, max_length=50, seed=0)
    loader = module.train_dataloader()
    epochs = []
    for epoch in (0, 1):
        module.start_epoch(epoch)
        epochs.append([int(batch.history.mask.sum()) for batch in loader])
    assert epochs[0] != epochs[1]


def test_validation_shows_training_events_and_asks_for_held_out_ones() -> None:
    every = histories()
    held = np.isin(np.arange(28), [26, 27])
    module = HistoryDataModule(
        every.select(~held), every.select(held), batch_size=4, max_length=50, seed=0
    )
    (batch,) = list(module.val_dataloader())
    assert batch.targets.tolist() == [[27, 28]]
    assert batch.history.item_idx.tolist() == [[22, 23, 24, 25, 26]]


def test_histories_too_short_to_train_on_are_refused() -> None:
    users = np.arange(1, 8)
    single = Histories.from_indices(users, users, users, 7)
    with pytest.raises(InputError, match=r"two training events.*at most 1"):
        HistoryDataModule(single, None, batch_size=2, max_length=50, seed=0)


def test_long_histories_are_cut_to_their_latest_events() -> None:
    module = HistoryDataModule(histories(), None, batch_size=10, max_length=3, seed=0)
    (batch,) = list(module.train_dataloader())
    assert batch.history.item_idx.shape[1] == 3
    assert [26, 27, 28] in batch.history.item_idx.tolist()


def test_weights_stand_beside_the_events_that_they_are_of() -> None:
    alike = histories()
    weighted = replace(alike, weights=np.arange(1, 29, dtype=np.float32))
    for given, expected in ((alike, np.ones(28)), (weighted, np.arange(1, 29) / 14.5)):
        module = HistoryDataModule(given, None, batch_size=10, max_length=3, seed=0)
        (batch,) = list(module.train_dataloader())
        history = batch.history
        assert batch.weights.dtype == torch.float32
        assert not batch.weights[~history.mask].any()
        of_items = torch.from_numpy(expected).float()[(history.item_idx - 1).clamp(min=0)]
        torch.testing.assert_close(batch.weights[history.mask], of_items[history.mask])
