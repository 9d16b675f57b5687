"""What each history tells, computed once: stage 1's query and stage 2's side of the signals."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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

    @torch.inference_mode()
    def encode(self, history: HistoryBatch, *, whole_catalogue: bool) -> list[EncodedHistory]:
        """One of each row [B, L].

        Args:
            whole_catalogue: whether to compute ``known``, which is worth it for a history that is
                asked for again. It is left out all the same where the pair signals are not in a
                table: signals with all items take longer there than those with a request's
                candidates save.
        """
        queries = self.retriever.encode(history)
        recent = latest_events(history, self.max_history)
        missing = self.max_history - recent.mask.shape[1]
        items, ages = (
            torch.nn.functional.pad(part, (0, missing)).numpy()
            for part in (recent.item_idx, event_ages(recent))
        )
        queries = queries.float().cpu()
        return [
            self._encoded(
                _alone(history, row), queries[row], items[row], ages[row], whole_catalogue
            )
            for row in range(len(queries))
        ]

    def _encoded(
        self,
        events: HistoryBatch,
        query: Tensor,
        recent: NDArray[np.int64],
        recent_age: NDArray[np.float32],
        whole_catalogue: bool,
    ) -> EncodedHistory:
        item_idx = events.item_idx[0].numpy()
        seen = item_idx[item_idx > 0]
        memory = None
        if self.exported is not None:
            memory = attention_memory(self.exported, torch.from_numpy(recent_age)).numpy()
        encoded = EncodedHistory(events, seen, query.numpy(), recent, recent_age, None, memory)
        if whole_catalogue and self.extractor is not None and self.extractor.pairs.has_table:
            everything = np.arange(self.extractor.num_items + 1)
            return encoded._replace(known=self.known(encoded, everything))
        return encoded

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
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Users that are kept."""
        return len(self._kept)

    def get(self, users: Sequence[int]) -> list[EncodedHistory | None]:
        """What is kept of each user."""
        with self._lock:
            for user in users:
                if user in self._kept:
                    self._kept.move_to_end(user)
            return [self._kept.get(user) for user in users]

    def put(self, user: int, encoded: EncodedHistory) -> None:
        """Keep it, and drop what was asked for longest ago until all fits."""
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
