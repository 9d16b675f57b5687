"""The items in the order of how popular they are now: the last resort."""

from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.feature_store.online import OnlineFeatures
from recsys.ranking import order, tie_hash

Items = NDArray[np.int64]
Scores = NDArray[np.float32]

_versions = count(1)
"""Of all objects together: one that takes another's place is of none of its versions. 0 is none."""


class Popularity:
    """Items by ``decayed_events``, most popular first.

    Read by any number of threads while one refreshes it.

    ``version`` rises each time that it is refreshed.

    Args:
        features: of the items, kept up to date by others.
    """

    def __init__(self, features: OnlineFeatures) -> None:
        self.features = features
        self.version = next(_versions)
        self._ranked, self._standardized = self._computed()

    def standardized(self, item_idx: Items) -> Scores:
        """How popular items are, in deviations from the average item: float32, as the items."""
        known = self._standardized
        found: Scores = known[np.where(item_idx < len(known), item_idx, 0)]
        return found

    def ranked(self, num_items: int) -> tuple[Items, Scores]:
        """Items int64 [num_items] of a catalogue of so many, and their scores float32."""
        items, scores = self._ranked
        if len(items) == num_items:
            return items, scores
        # Another catalogue than that of the latest refresh, of fewer items or more.
        kept = items <= num_items
        new = np.arange(len(items) + 1, num_items + 1)
        zeros = np.zeros(len(new), np.float32)
        return np.append(items[kept], new), np.append(scores[kept], zeros)

    def refresh(self) -> None:
        """Take in what the features know now."""
        self._ranked, self._standardized = self._computed()
        self.version = next(_versions)

    def _computed(self) -> tuple[tuple[Items, Scores], Scores]:
        events = self.features.decayed_popularity()
        hashes = tie_hash(torch.arange(len(events))).numpy()
        items = order(events[1:], hashes[1:]).astype(np.int64) + 1
        return (items, events[items].astype(np.float32)), standardized(events)


def standardized(counts: NDArray[np.float64]) -> Scores:
    """Counts of items 1..N in deviations from their mean: float32 [N + 1].

    Entry 0, for items without events, is what a count of 0 gives.
    """
    mean, deviation = counts[1:].mean(), float(counts[1:].std()) or 1.0
    found: Scores = ((counts - mean) / deviation).astype(np.float32)
    found[0] = -mean / deviation
    return found
