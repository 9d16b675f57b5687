"""Batches that are made while those before them are learned from."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader

T = TypeVar("T")


class InBackground(Generic[T]):
    """The same batches in the same order; a thread makes the next one meanwhile.

    Args:
        batches: must not draw from PyTorch's own random numbers, which the steps draw from.
    """

    def __init__(self, batches: DataLoader[T]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[T]:
        # Threads of a new thread's operations are counted anew.
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(1, "batches", torch.set_num_threads, (threads,)) as pool:
            source = iter(self.batches)
            following = pool.submit(next, source, None)
            while (batch := following.result()) is not None:
                following = pool.submit(next, source, None)
                yield batch
