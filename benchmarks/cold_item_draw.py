"""Holds random items out of training: the rows that remain, and what is asked of the rankers."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.prepare import TrainingData, prepare
from recsys.evaluation import Targets
from recsys.schema import ITEM_ID, Dataset, Split

SHARE = 0.1
"""Of the items that may be drawn."""


@dataclass(frozen=True)
class ColdItems:
    """A draw: what may be trained on, and what is asked.

    data: its training rows hold no cold item; its catalogue holds all. cold: bool [N + 1].
    targets: every interaction, training or test, with a cold item.
    """

    data: TrainingData
    cold: NDArray[np.bool_]
    targets: Targets

    def __post_init__(self) -> None:
        assert not self.cold[self.data.train.item_idx].any(), "a cold item has training rows"
        assert self.cold[self.targets.items.numpy()].all(), "a target is not a cold item"


def hold_out_items(data: TrainingData, candidates: NDArray[np.int64], seed: int) -> ColdItems:
    """Hold a random tenth of the items ``candidates`` [n] out of training altogether."""
    drawn = np.random.default_rng(seed).permutation(candidates)[: round(SHARE * len(candidates))]
    cold = np.zeros(len(data.items) + 1, dtype=bool)
    cold[drawn] = True
    train, test = data.split.train, data.split.test
    rows = pd.concat([train, test], ignore_index=True)
    split = Split(
        name="cold-items",
        protocol=f"cold items: {len(drawn)} random items have no training rows, seed {seed}",
        train=train[~cold[data.items.encode(train[ITEM_ID])]].reset_index(drop=True),
        test=rows[cold[data.items.encode(rows[ITEM_ID])]].reset_index(drop=True),
    )
    warm = prepare(Dataset(data.name, rows, data.catalog.items, data.user_frame), split)
    # Text vectors and ``cold`` go by index.
    assert warm.items.content_hash() == data.items.content_hash()
    return ColdItems(warm, cold, Targets.from_frame(split.test, warm.users, warm.items))


def draw_cold_items(data: TrainingData, seed: int) -> ColdItems:
    """Hold a random tenth of the catalogue out."""
    return hold_out_items(data, np.arange(1, len(data.items) + 1), seed)
