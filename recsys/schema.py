"""Column names, the padding index, and the types that cross module boundaries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

PAD_IDX = 0
"""Index 0 is padding in every table, tensor and FAISS index; real items and users start at 1."""

USER_ID = "user_id"
ITEM_ID = "item_id"
TIMESTAMP = "timestamp"
RATING = "rating"
TYPE = "type"
ALL_TYPES = "all_types"
WEIGHT = "weight"
TITLE = "title"
DESCRIPTION = "description"
GENRES = "genres"
YEAR = "year"
RELEASE_DATE = "release_date"

DISMISS = "dismiss"
"""The type of a row, or a live event, by which a user does not want to see an item."""

GENRE_SEPARATOR = "|"

ExternalId = int | str
"""A user's own identifier of a user or an item."""

Source = Literal["reranked", "retrieved", "popular"]
"""Which part of the system ordered a list: stage 2, stage 1, or the popularity fallback."""


@dataclass(frozen=True)
class Dataset:
    """Validated raw frames, in the user's own ids.

    interactions: ``user_id, item_id`` (int64 or str), optional ``timestamp`` (int64, unix seconds),
        ``rating`` (float64), ``type`` (str, "" where none is told), ``weight`` (float64, how much a
        row counts) and ``all_types`` (str, a JSON list of all types that the pair has had, "" where
        none is told; where it is missing, each has had its ``type`` alone); one row per
        (user, item); a RangeIndex in file order.
    items: ``item_id, title`` (str, never empty), optional ``description`` (str), ``genres`` (str,
        joined by ``|``, may be empty), ``year`` (Int64, may be missing) and ``release_date`` (str,
        YYYY-MM-DD, may be empty); one row per item.
    users: optional frame with ``user_id`` and any attributes.
    event_weights: what an event of each type counts; None where types make no difference.
    count_repeats: whether rows of a pair add up where neither weights nor types tell their worth.
    half_life_days: by which rows fade, those of a pair to its latest row's time so far; None: not.
    dismissed: optional frame of ``user_id, item_id`` (and ``timestamp``): pairs that were dismissed
        last, and are not among the interactions.
    has_text: whether any item has a title or a description; else ids stand for titles.
    """

    name: str
    interactions: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame | None = None
    event_weights: Mapping[str, float] | None = None
    count_repeats: bool = False
    half_life_days: float | None = None
    dismissed: pd.DataFrame | None = None
    has_text: bool = True


@dataclass(frozen=True)
class Split:
    """Training and held-out interactions of one data set, and what the split means.

    ``protocol`` is a sentence that goes to ``metrics.json`` and the report.
    """

    name: str
    protocol: str
    train: pd.DataFrame
    test: pd.DataFrame


class HistoryBatch(NamedTuple):
    """Padded, time-ordered histories with their users' attributes; events are left-aligned.

    item_idx: int64 [B, L], 0 where padded. timestamps: int64 [B, L], unix seconds, 0 where padded.
    mask: bool [B, L], True = real. context: float32 [B, A], the users' attributes, the average
    user's where none are known. weights: float32 [B, L], how much each event counts, 1 on average
    over the training events, 0 where padded; None: all count alike.
    """

    item_idx: Tensor
    timestamps: Tensor
    mask: Tensor
    context: Tensor
    weights: Tensor | None = None

    def rows(self, own: Tensor | NDArray[np.int64] | Sequence[int] | slice) -> "HistoryBatch":
        """Some of the histories: by their rows, or by a bool for each."""
        return HistoryBatch(*(None if part is None else part[own] for part in self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class RankedList:
    """The answer to one request, best first; it may hold fewer than ``top_k`` items.

    scores: float32 [K], comparable within this list only; non-increasing unless rules have arranged
    the list. touched: what rule has moved each item; empty where none can have. notes: why the list
    is shorter than asked for.
    """

    user_id: ExternalId | None
    item_ids: list[ExternalId]
    scores: NDArray[np.float32]
    source: Source
    touched: Sequence[str | None] = ()
    notes: Sequence[str] = ()
