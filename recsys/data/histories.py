"""Time-ordered histories as flat arrays with offsets (CSR), and their padding."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.times import EARLIEST
from recsys.data.type_sets import TypeSets, from_names, of_single_types, packed
from recsys.data.vocabulary import Vocabulary
from recsys.schema import (
    ALL_TYPES,
    ITEM_ID,
    RATING,
    TIMESTAMP,
    TYPE,
    USER_ID,
    WEIGHT,
    HistoryBatch,
)

_OF_EVENTS = ("item_idx", "timestamps", "ratings", "weights", "types", "type_sets")


@dataclass(frozen=True)
class Histories:
    """The events of all users, flat: row ``u`` owns ``[offsets[u], offsets[u + 1])``, oldest first.

    offsets: int64 [U + 2]; row 0 is the padding user and empty. item_idx: int64 [N].
    timestamps: int64 [N], unix seconds. Events with equal timestamps keep their file order.
    context: float32 [U + 1, A], the users' attributes, in row 0 the average user's; A may be 0.
    ratings: float64 [N]; NaN where an event has none.
    weights: float32 [N], above 0: how much an event counts; 1 for all where nothing else is told.
    types: int8 [N], 1.. for the type whose name stands there in ``TrainingData.event_types``, 0
    where none is told.
    type_sets: uint8 [N, B], all types that the user has had the item by: see ``TypeSets``.
    """

    offsets: NDArray[np.int64]
    item_idx: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    context: NDArray[np.float32]
    ratings: NDArray[np.float64]
    weights: NDArray[np.float32]
    types: NDArray[np.int8]
    type_sets: TypeSets

    @classmethod
    def from_indices(
        cls,
        user_idx: NDArray[np.int64],
        item_idx: NDArray[np.int64],
        timestamps: NDArray[np.int64],
        num_users: int,
        context: NDArray[np.float32] | None = None,
        ratings: NDArray[np.float64] | None = None,
        weights: NDArray[np.float32] | None = None,
        types: NDArray[np.int8] | None = None,
        type_sets: TypeSets | None = None,
    ) -> "Histories":
        """Build from parallel arrays [N] in any order; ``user_idx`` lies in 1..num_users."""
        order = np.lexsort((np.arange(len(user_idx)), timestamps, user_idx))
        counts = np.bincount(user_idx, minlength=num_users + 1)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        if context is None:
            context = np.zeros((num_users + 1, 0), dtype=np.float32)
        if ratings is None:
            ratings = np.full(len(user_idx), np.nan)
        if weights is None:
            weights = np.ones(len(user_idx), dtype=np.float32)
        if types is None:
            types = np.zeros(len(user_idx), dtype=np.int8)
        if type_sets is None:
            type_sets = of_single_types(types)
        return cls(
            offsets,
            item_idx[order],
            timestamps[order],
            context,
            ratings[order],
            weights[order],
            types[order],
            type_sets[order],
        )

    @classmethod
    def from_frame(
        cls,
        interactions: pd.DataFrame,
        users: Vocabulary,
        items: Vocabulary,
        context: NDArray[np.float32] | None = None,
        event_types: Sequence[str] = (),
    ) -> "Histories":
        """Encode a frame of interactions; ``context`` has the users' rows already.

        Args:
            event_types: names; a type that is not among them is as none.

        Raises:
            ValueError: when the frame holds a user or an item that the vocabularies lack.
        """
        user_idx = users.encode(interactions[USER_ID])
        item_idx = items.encode(interactions[ITEM_ID])
        if (user_idx == 0).any() or (item_idx == 0).any():
            raise ValueError("interactions hold ids that the vocabulary lacks; filter them first")
        if TIMESTAMP in interactions:
            timestamps = interactions[TIMESTAMP].to_numpy(np.int64)
        else:
            timestamps = np.full(len(interactions), EARLIEST)  # none have any: all have one
        ratings = interactions[RATING].to_numpy(np.float64) if RATING in interactions else None
        weights = interactions[WEIGHT].to_numpy(np.float32) if WEIGHT in interactions else None
        types = type_sets = None
        if TYPE in interactions and event_types:
            codes = pd.Index(event_types).get_indexer(pd.Index(interactions[TYPE]))
            types = (codes + 1).astype(np.int8)
            type_sets = packed(types, len(event_types))
            if ALL_TYPES in interactions:
                type_sets = type_sets | from_names(interactions[ALL_TYPES], event_types)
        return cls.from_indices(
            user_idx, item_idx, timestamps, len(users), context, ratings, weights, types, type_sets
        )

    def check(self, num_items: int) -> None:
        """For arrays from outside, before anything is looked up by them.

        Raises:
            ValueError: when they are not as described above, of items 1..num_items.
        """
        kinds = {
            "offsets": ("int64", 1),
            "item_idx": ("int64", 1),
            "timestamps": ("int64", 1),
            "context": ("float32", 2),
            "ratings": ("float64", 1),
            "weights": ("float32", 1),
            "types": ("int8", 1),
            "type_sets": ("uint8", 2),
        }
        arrays = {name: getattr(self, name) for name in kinds}
        if {name: (one.dtype.name, one.ndim) for name, one in arrays.items()} != kinds:
            raise ValueError("histories of other types or dimensions")
        if len(self.offsets) < 2 or self.offsets[0] or self.offsets[1] or (self.lengths < 0).any():
            raise ValueError("offsets that do not rise from 0")
        of_events = (arrays[name] for name in _OF_EVENTS)
        sizes = {int(self.offsets[-1]), *map(len, of_events)}
        if len(sizes) > 1 or len(self.context) != self.num_users + 1:
            raise ValueError("histories of several lengths")
        if len(self) and not 1 <= self.item_idx.min() <= self.item_idx.max() <= num_items:
            raise ValueError(f"events of items beyond 1..{num_items}")
        # Nor are NaNs above 0.
        if not ((self.weights > 0) & (self.weights < np.inf)).all() or (self.types < 0).any():
            raise ValueError("events of weights or types that there cannot be")

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 2

    def __len__(self) -> int:
        """Number of events."""
        return len(self.item_idx)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Events per user, int64 [U + 1]; entry 0 (padding) is 0."""
        return np.diff(self.offsets)

    @property
    def user_idx(self) -> NDArray[np.int64]:
        """The user of each event, int64 [N]."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.lengths)

    def random_ranks(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Each event's place [N], from 0, in a random order of its user's events."""
        user_idx = self.user_idx
        order = np.lexsort((rng.random(len(self)), user_idx))
        ranks = np.empty(len(self), dtype=np.int64)
        ranks[order] = np.arange(len(self)) - self.offsets[user_idx[order]]
        return ranks

    @property
    def ranks_from_end(self) -> NDArray[np.int64]:
        """Each event's place [N], 0 the latest of its user's events."""
        return self.offsets[self.user_idx + 1] - 1 - np.arange(len(self))

    def item_counts(self, num_items: int) -> NDArray[np.int64]:
        """Events per item, int64 [num_items + 1]; entry 0 is 0."""
        return np.bincount(self.item_idx, minlength=num_items + 1)

    def item_strengths(self, num_items: int) -> NDArray[np.float64]:
        """Sum of the ``relative_weights`` of each item's events: float64 [num_items + 1].

        In units of events, as ``item_counts``, which it is where all weigh the same.
        """
        sums = np.bincount(self.item_idx, self.relative_weights, num_items + 1)
        return sums.astype(np.float64)  # without events, integers are counted

    @cached_property
    def has_order(self) -> bool:
        """Whether some event is later than another."""
        return len(self) > 0 and bool(self.timestamps.min() < self.timestamps.max())

    @cached_property
    def are_alike(self) -> bool:
        """Whether all events weigh the same."""
        return len(self) == 0 or bool(self.weights.min() == self.weights.max())

    @cached_property
    def relative_weights(self) -> NDArray[np.float32]:
        """Weights by their mean, float32 [N]: what is in units of events keeps its meaning."""
        if self.are_alike:
            return np.ones(len(self), dtype=np.float32)
        return self.weights / np.float32(self.mean_weight)

    @cached_property
    def mean_weight(self) -> float:
        """Of all events; 1 without events."""
        return float(self.weights.mean(dtype=np.float64)) if len(self) else 1.0

    def matrix(self, num_items: int) -> csr_matrix:
        """Which user has which item: float32 [U + 1, N + 1], 1 where an event is, however many."""
        ones = np.ones(len(self), dtype=np.float32)
        shape = (self.num_users + 1, num_items + 1)
        matrix = csr_matrix((ones, self.item_idx, self.offsets), shape=shape, copy=True)
        matrix.sum_duplicates()
        matrix.data[:] = 1.0
        return matrix

    def matrix_of(self, values: NDArray[np.float32], num_items: int) -> csr_matrix:
        """As ``matrix``, of the sum of the values [N] of the events in each place."""
        shape = (self.num_users + 1, num_items + 1)
        matrix = csr_matrix((values, self.item_idx, self.offsets), shape=shape, copy=True)
        matrix.sum_duplicates()
        return matrix

    def select(self, keep: NDArray[np.bool_]) -> "Histories":
        """The events where ``keep`` [N] is True, same users."""
        counts = np.bincount(self.user_idx[keep], minlength=self.num_users + 1)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        kept = {name: getattr(self, name)[keep] for name in _OF_EVENTS}
        return replace(self, offsets=offsets, **kept)

    def pad(self, user_idx: NDArray[np.int64], max_length: int | None = None) -> HistoryBatch:
        """The latest ``max_length`` events of each user, oldest first and left-aligned: [B, L].

        L is the longest history in the batch, at least 1. Weights are ``relative_weights``, and
        left out where these are alike.
        """
        ends = self.offsets[user_idx + 1]
        lengths = ends - self.offsets[user_idx]
        if max_length is not None:
            lengths = np.minimum(lengths, max_length)
        width = max(int(lengths.max(initial=0)), 1)
        positions = np.arange(width)
        mask = positions < lengths[:, None]
        source = np.where(mask, (ends - lengths)[:, None] + positions, 0)
        if len(self) == 0:
            zeros = np.zeros_like(source)
            item_idx, timestamps = zeros, zeros
        else:
            item_idx = np.where(mask, self.item_idx[source], 0)
            timestamps = np.where(mask, self.timestamps[source], 0)
        arrays = [item_idx, timestamps, mask, self.context[user_idx]]
        if not self.are_alike:
            arrays.append(np.where(mask, self.relative_weights[source], np.float32(0.0)))
        return HistoryBatch(*(torch.from_numpy(array) for array in arrays))


def end_of_log(histories: Histories) -> int:
    """The time of the latest event, in unix seconds; 0 without events.

    Events in the future, which a wrong clock has written, do not end it unless all are such.
    """
    times = histories.timestamps
    past = times[times <= time.time()]
    return int((past if len(past) else times).max(initial=0))


def latest_events(history: HistoryBatch, max_length: int) -> HistoryBatch:
    """The latest ``max_length`` events of each left-aligned history [B, L]: [B, <= max_length]."""
    if history.mask.shape[1] <= max_length:
        return history
    length = history.mask.sum(dim=1, keepdim=True)
    width = min(max_length, max(int(length.max()), 1))
    source = (length - width).clamp(min=0) + torch.arange(width, device=length.device)
    mask = source < length
    source = source.clamp(max=history.mask.shape[1] - 1)
    item_idx = history.item_idx.gather(1, source) * mask
    timestamps = history.timestamps.gather(1, source) * mask
    weights = None if history.weights is None else history.weights.gather(1, source) * mask
    return HistoryBatch(item_idx, timestamps, mask, history.context, weights)
