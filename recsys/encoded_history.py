"""What each history tells, computed once: stage 1's query and stage 2's side of the signals."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.data.histories import latest_events
from recsys.list_scorer import attention_memory
from recsys.models.cross_encoder import CrossEncoder
from recsys.retriever import Retriever
from recsys.schema import HistoryBatch
from recsys.signals import SignalExtractor, event_ages


class EncodedHistory(NamedTuple):
    """A history as both stages read it.

    events: the whole history as a batch of one, without padding. seen: int64 [n], its items.
    query: float32 [D], the query embedding. recent: int64 [L], the latest events that stage 2
    attends to, left-aligned, the rest 0. recent_age: float32 [L]; see ``RankingBatch``. known:
    float32 [N + 1, H + O], what the history tells of each item of the catalogue, whatever list it
    is in: stage 1's scores by tower and ``SignalExtractor.own_signals``; None where it is computed
    for candidates alone. memory: of ``attention_memory``, for an exported stage 2.
    """

    events: HistoryBatch
    seen: NDArray[np.int64]
    query: NDArray[np.float32]
    recent: NDArray[np.int64]
    recent_age: NDArray[np.float32]
    known: NDArray[np.float32] | None
    memory: NDArray[np.float32] | None

    @property
    def num_bytes(self) -> int:
        """Memory that it takes, about."""
        arrays = [array for array in (*self[1:], *self.events) if array is not None]
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

    @property
    def num_towers(self) -> int:
        """How many towers stage 1 has."""
        return len(self.retriever.model.embedding_dims)

    @property
    def knows_catalogue(self) -> bool:
        """Whether ``completed`` is worth its while.

        Where the pair signals are not in a table, signals with all items take longer than those
        with the candidates of some requests save.
        """
        return self.extractor is not None and self.extractor.pairs.has_table

    @torch.inference_mode()
    def encode(self, history: HistoryBatch) -> list[EncodedHistory]:
        """One of each row [B, L], without what it tells of the whole catalogue."""
        queries = self.retriever.encode(history).float().cpu()
        recent = latest_events(history, self.max_history)
        missing = self.max_history - recent.mask.shape[1]
        items, ages = (
            torch.nn.functional.pad(part, (0, missing))
            for part in (recent.item_idx, event_ages(recent))
        )
        encoded = []
        for row, query in enumerate(queries):
            memory = None
            if self.exported is not None:
                memory = attention_memory(self.exported, ages[row]).numpy()
            events = _alone(history, row)
            seen = events.item_idx[events.mask].numpy()
            parts = (query.numpy(), items[row].numpy(), ages[row].numpy())
            encoded.append(EncodedHistory(events, seen, *parts, None, memory))
        return encoded

    def completed(self, history: EncodedHistory) -> EncodedHistory:
        """The same with ``known``: dear, and worth it for a history that is asked for again."""
        everything = np.arange(self.retriever.model.num_items + 1)
        return history._replace(known=self.known(history, everything))

    @torch.inference_mode()
    def known(self, history: EncodedHistory, item_idx: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the history tells of items [K]: float32 [K, H + O]; see ``EncodedHistory``.

        Raises:
            ValueError: without a stage 2, which alone has use for it.
        """
        if history.known is not None:
            return history.known[item_idx]
        if self.extractor is None:
            raise ValueError("expected an encoder with stage 2's signals; found one without")
        items = torch.from_numpy(item_idx)[None]
        scores = self.retriever.tower_scores(torch.from_numpy(history.query)[None], items)
        own = self.extractor.own_signals(history.events, items)
        both: NDArray[np.float32] = torch.cat([scores, own], dim=2)[0].numpy()
        return both


class HistoryCache:
    """Encoded histories by user, least recently used first out; for several threads.

    Args:
        max_bytes: of all entries together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._kept: OrderedDict[int, EncodedHistory] = OrderedDict()
        self._asked: dict[int, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Users that are kept."""
        return len(self._kept)

    def get(self, users: Sequence[int]) -> tuple[list[EncodedHistory | None], list[int]]:
        """What is kept of each user, and how often it has been asked for."""
        with self._lock:
            for user in users:
                if user in self._kept:
                    self._kept.move_to_end(user)
                    self._asked[user] += 1
            kept = [self._kept.get(user) for user in users]
            return kept, [self._asked.get(user, 0) for user in users]

    def put(self, user: int, encoded: EncodedHistory) -> None:
        """Keep it, and drop what was asked for longest ago until all fits."""
        if encoded.num_bytes > self.max_bytes:
            return
        with self._lock:
            old = self._kept.pop(user, None)
            if old is not None:
                self.num_bytes -= old.num_bytes
            self._kept[user] = encoded
            self._asked.setdefault(user, 0)
            self.num_bytes += encoded.num_bytes
            while self.num_bytes > self.max_bytes:
                dropped, its = self._kept.popitem(last=False)
                self.num_bytes -= its.num_bytes
                del self._asked[dropped]


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
