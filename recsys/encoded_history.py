"""What each history tells, computed once: stage 1's query and stage 2's side of the signals."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.histories import latest_events
from recsys.index import Exclusion
from recsys.list_scorer import attention_memory
from recsys.models.cross_encoder import CrossEncoder
from recsys.retriever import Retriever
from recsys.schema import ExternalId, HistoryBatch
from recsys.signals import SignalExtractor, event_ages


class ListFeatures(NamedTuple):
    """What a reranker reads of a history's candidates: depends on these two alone.

    item_idx: int64 [K], the candidates, in stage-1 order. arrays: the reranker's own, each as a
    batch of one list.
    """

    item_idx: NDArray[np.int64]
    arrays: Sequence[NDArray[Any]]

    def are_of(self, item_idx: NDArray[np.int64]) -> bool:
        """Whether these are the candidates."""
        return len(item_idx) == len(self.item_idx) and item_idx.tobytes() == self.item_idx.tobytes()


class EncodedHistory(NamedTuple):
    """A history as both stages read it.

    events: the whole history as a batch of one, without padding. seen: its items, which are never
    returned. query: float32 [D], the query embedding. recent: int64 [L], the latest events that
    stage 2 attends to, left-aligned, the rest 0. recent_age: float32 [L]; see ``RankingBatch``.
    memory: of ``attention_memory``, for an exported stage 2; else empty. features: of the
    candidates that were re-ranked last; None where there were none. version: of the user's events,
    see ``UserEvents``. popular_share: of popularity in the scores, see ``NewUserBlend``. catalogue:
    of how many items the history was made, where it has others, too, that may come; else 0.
    """

    events: HistoryBatch
    seen: Exclusion
    query: NDArray[np.float32]
    recent: NDArray[np.int64]
    recent_age: NDArray[np.float32]
    memory: Sequence[NDArray[np.float32]]
    features: ListFeatures | None = None
    version: int = 0
    popular_share: float = 0.0
    catalogue: int = 0

    @property
    def num_bytes(self) -> int:
        """Memory that it takes, about."""
        arrays: list[Any] = [self.seen.items, self.query, self.recent, self.recent_age]
        arrays += [*self.memory, *self.events]
        if self.features is not None:
            arrays += [self.features.item_idx, *self.features.arrays]
        return sum(int(array.nbytes) for array in arrays)


class HistoryEncoder:
    """Encodes histories for both stages.

    Args:
        retriever: encodes stage 1's queries. extractor: stage 2's signals; None without a stage 2.
        max_history: the latest events that stage 2 attends to. exported: the cross-encoder, where
            its exported form is used.
    """

    def __init__(
        self,
        retriever: Retriever,
        extractor: SignalExtractor | None,
        max_history: int,
        exported: CrossEncoder | None = None,
    ) -> None:
        self.retriever = retriever
        self.exported = exported
        self.extractor = extractor
        self.max_history = max_history

    def with_text(self, text: Tensor, retriever: Retriever) -> "HistoryEncoder":
        """For more items: float32 [M + 1, T], the first the same. This object stays as it is.

        Args:
            retriever: of as many items.
        """
        extractor = None if self.extractor is None else self.extractor.with_text(text)
        return HistoryEncoder(retriever, extractor, self.max_history, self.exported)

    @torch.inference_mode()
    def encode(self, history: HistoryBatch, wanted: Tensor | None = None) -> list[EncodedHistory]:
        """One of each row [B, L].

        Args:
            wanted: see ``Retriever.encode``.
        """
        queries = self.retriever.encode(history, wanted).float().cpu()
        recent = latest_events(history, self.max_history)
        missing = self.max_history - recent.mask.shape[1]
        items, ages = (
            torch.nn.functional.pad(part, (0, missing))
            for part in (recent.item_idx, event_ages(recent))
        )
        encoded = []
        for row, query in enumerate(queries):
            memory: list[NDArray[np.float32]] = []
            if self.exported is not None:
                memory = [
                    part.numpy() for part in attention_memory(self.exported, ages[row : row + 1])
                ]
            events = _alone(history, row)
            seen = self.retriever.index.exclusion(events.item_idx[events.mask].numpy())
            # Copies, so that what is kept does not hold its neighbours.
            parts = (query.clone().numpy(), items[row].clone().numpy(), ages[row].clone().numpy())
            encoded.append(EncodedHistory(events, seen, *parts, memory))
        return encoded

    @torch.inference_mode()
    def signals(self, history: EncodedHistory, item_idx: NDArray[np.int64]) -> Tensor:
        """Of candidates [K] in stage-1 order: float32 [1, K, S], see ``SignalExtractor.signals``.

        Raises:
            ValueError: without a stage 2, which alone has use for it.
        """
        if self.extractor is None:
            raise ValueError("expected an encoder with stage 2's signals; found one without")
        items = torch.from_numpy(item_idx)[None]
        scores = self.retriever.tower_scores(torch.from_numpy(history.query)[None], items)
        return self.extractor.signals(history.events, items, scores)


class HistoryCache:
    """Encoded histories by user, least recently used first out; for several threads.

    Args:
        max_bytes: of all entries together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._kept: OrderedDict[ExternalId, EncodedHistory] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Users that are kept."""
        return len(self._kept)

    def get(
        self, users: Sequence[ExternalId | None], versions: Sequence[int], catalogue: int
    ) -> list[EncodedHistory | None]:
        """What is kept of each user, where it is of that version and has all items that a catalogue
        of so many has; None is nobody.
        """
        with self._lock:
            return [
                None if user is None else self._found(user, version, catalogue)
                for user, version in zip(users, versions, strict=True)
            ]

    def _found(self, user: ExternalId, version: int, catalogue: int) -> EncodedHistory | None:
        found = self._kept.get(user)
        if found is None or found.version != version or found.catalogue not in (0, catalogue):
            return None
        self._kept.move_to_end(user)
        return found

    def users(self) -> list[ExternalId]:
        """Of whom something is kept."""
        with self._lock:
            return list(self._kept)

    def forget(self, user: ExternalId) -> None:
        """Drop what is kept of a user."""
        with self._lock:
            dropped = self._kept.pop(user, None)
            if dropped is not None:
                self.num_bytes -= dropped.num_bytes

    def put(self, user: ExternalId, encoded: EncodedHistory) -> None:
        """Keep it, and drop what was asked for longest ago until all fits."""
        if encoded.num_bytes > self.max_bytes:
            return
        with self._lock:
            old = self._kept.pop(user, None)
            if old is not None:
                self.num_bytes -= old.num_bytes
            self._kept[user] = encoded
            self.num_bytes += encoded.num_bytes
            while self.num_bytes > self.max_bytes:
                _, dropped = self._kept.popitem(last=False)
                self.num_bytes -= dropped.num_bytes


def _alone(history: HistoryBatch, row: int) -> HistoryBatch:
    """One row as a batch, without the padding that its neighbours need."""
    length = max(int(history.mask[row].sum()), 1)
    one = slice(row, row + 1)
    # Copies, so that what is kept does not hold its neighbours.
    return HistoryBatch(
        history.item_idx[one, :length].clone(),
        history.timestamps[one, :length].clone(),
        history.mask[one, :length].clone(),
        history.context[one].clone(),
    )
