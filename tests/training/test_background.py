"""Batches made in the background: the same ones, one ahead, and errors are told."""

import threading
from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from recsys.training.background import InBackground


class Numbers(IterableDataset[int]):
    """0, 1, 2 …, and who has made them."""

    def __init__(self, number: int, fails_at: int | None = None) -> None:
        self.number, self.fails_at = number, fails_at
        self.made: list[int] = []
        self.threads: set[int] = set()

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[int]:
        for number in range(self.number):
            if number == self.fails_at:
                raise ValueError("no more")
            self.threads.add(threading.get_ident())
            self.made.append(number)
            yield number


def in_background(numbers: Numbers) -> InBackground[int]:
    return InBackground(DataLoader(numbers, batch_size=None))


def test_all_batches_come_in_their_order_and_each_time_anew() -> None:
    batches = in_background(Numbers(7))
    assert len(batches) == 7
    assert list(batches) == list(batches) == list(range(7))


def test_another_thread_makes_them() -> None:
    numbers = Numbers(3)
    list(in_background(numbers))
    assert threading.get_ident() not in numbers.threads


def test_no_more_than_one_is_made_ahead() -> None:
    numbers = Numbers(9)
    batches = iter(in_background(numbers))
    next(batches)
    del batches  # which waits for the one under way
    assert len(numbers.made) <= 3


def test_an_error_is_raised_where_its_batch_is_wanted() -> None:
    batches = iter(in_background(Numbers(5, fails_at=2)))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="no more"):
        next(batches)


def test_steps_draw_the_random_numbers_that_they_would_draw_without_it() -> None:
    drawn = []
    for batches in (DataLoader(Numbers(4), batch_size=None), in_background(Numbers(4))):
        torch.manual_seed(0)
        drawn.append([torch.rand(()).item() for _ in batches])
    assert drawn[0] == drawn[1]
