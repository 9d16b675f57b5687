"""Validation events, carved out of training events in the way that a split carves test rows out."""

import numpy as np

from recsys.data.histories import Histories
from recsys.data.prepare import hold_out_random, most_held_out

_LATEST_SHARE = 0.2
"""Of a user's events, where the latest are held out: what is far ahead, told from half of a
history, wants other settings than what comes next."""


def hold_out_like(
    split: str, train: Histories, num_test: int, test_fraction: float, seed: int
) -> tuple[Histories, Histories]:
    """The remaining and the held-out events of ``train``.

    As of ``recsys.data.splits``: ``leave_last`` holds out each user's latest ``num_test`` events;
    ``global_time`` the latest ``test_fraction`` of all, those of users without remaining events
    left out. Any other split is taken for random per user. Of a user at most a fifth is held out by
    ``leave_last``, but one of two to nine events, and at most half by a random split.
    """
    if split == "global_time" and len(train):
        times = train.timestamps
        cut = np.sort(times)[-max(1, round(test_fraction * len(times)))]
        remaining = train.select(times < cut)
        known = (remaining.lengths > 0)[train.user_idx]
        return remaining, train.select((times >= cut) & known)
    if split == "leave_last":
        held_out = train.ranks_from_end < most_held_out(train, num_test, _LATEST_SHARE)
        return train.select(~held_out), train.select(held_out)
    return hold_out_random(train, num_test, seed)
