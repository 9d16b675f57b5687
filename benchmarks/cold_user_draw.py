"""Holds random users out of training: the rows that remain, histories to give, what is asked."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from recsys.data.histories import Histories
from recsys.data.prepare import TrainingData, prepare
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.evaluation import Targets
from recsys.schema import USER_ID, Dataset, Split

SHARE = 0.1
"""Of all users."""
NUM_GIVEN = 20
"""The most interactions of a user that are given; those after them are relevant."""
MIN_RELEVANT = 5


@dataclass(frozen=True)
class ColdUsers:
    """A draw: what may be trained on, and what is asked.

    data: the training rows of the other users. histories: all interactions of the unseen users,
    who are rows 1..U of it and of ``targets``. targets: those after the first ``NUM_GIVEN``.
    """

    data: TrainingData
    histories: Histories
    targets: Targets

    def given(self, length: int) -> Histories:
        """The unseen users' first ``length`` interactions."""
        return self.histories.select(_places(self.histories) < length)

    def shuffled(self, seed: int) -> "ColdUsers":
        """The same users with their interactions in a random order, so with other targets."""
        events = self.histories
        places = events.random_ranks(np.random.default_rng(seed))
        histories = Histories.from_indices(
            events.user_idx, events.item_idx, places, events.num_users
        )
        return ColdUsers(self.data, histories, _targets(histories))


def draw_cold_users(data: TrainingData, seed: int) -> ColdUsers:
    """Hold a random tenth of the users out; those with too few interactions are never drawn.

    Raises:
        InputError: when no user has enough interactions.
    """
    rows = pd.concat([data.split.train, data.split.test], ignore_index=True)
    counts = rows[USER_ID].value_counts().sort_index()
    eligible = counts.index[counts >= NUM_GIVEN + MIN_RELEVANT]
    if not len(eligible):
        raise InputError(
            f"users with {NUM_GIVEN + MIN_RELEVANT} interactions",
            f"at most {counts.max()} per user",
            "use data with longer histories",
        )
    number = min(max(round(SHARE * len(counts)), 1), len(eligible))
    drawn = eligible[np.random.default_rng(seed).permutation(len(eligible))[:number]]
    is_drawn = rows[USER_ID].isin(drawn)
    split = Split(
        name="cold-users",
        protocol=f"cold users: {number} random users have no training rows, seed {seed}",
        train=data.split.train[~data.split.train[USER_ID].isin(drawn)].reset_index(drop=True),
        test=rows[is_drawn].reset_index(drop=True),
    )
    others = prepare(Dataset(data.name, rows, data.catalog.items, data.user_frame), split)
    # Text vectors go by index.
    assert others.items.content_hash() == data.items.content_hash()
    unseen = Vocabulary(drawn.tolist()).sorted()
    assert not others.users.encode(unseen.ids).any(), "an unseen user has training rows"
    histories = Histories.from_frame(split.test, unseen, others.items)
    return ColdUsers(others, histories, _targets(histories))


def _places(histories: Histories) -> NDArray[np.int64]:
    """Each event's place in its user's history, from 0: int64 [N]."""
    places: NDArray[np.int64] = np.arange(len(histories)) - histories.offsets[histories.user_idx]
    return places


def _targets(histories: Histories) -> Targets:
    later = histories.select(_places(histories) >= NUM_GIVEN)
    return Targets(
        user_idx=np.arange(1, histories.num_users + 1),
        rows=torch.from_numpy(later.user_idx - 1),
        items=torch.from_numpy(later.item_idx),
        num_relevant=torch.from_numpy(later.lengths[1:]),
    )
