"""What stored histories tell of all items, kept between requests."""

from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.schema import HistoryBatch
from recsys.signals import SignalExtractor


class HistoryCache:
    """``SignalExtractor.own_signals`` of whole histories with the whole catalogue, by user.

    Least recently used first out. For a catalogue whose pair signals are in a table: elsewhere
    the signals with all items take longer than those with a request's candidates save.

    Args:
        max_bytes: of all entries together.
    """

    def __init__(self, extractor: SignalExtractor, max_bytes: int) -> None:
        self.extractor = extractor
        self._items = torch.arange(extractor.num_items + 1)[None]
        self._signals: OrderedDict[int, Tensor] = OrderedDict()
        self._max_bytes = max_bytes
        self._enabled = extractor.pairs.table is not None

    def __len__(self) -> int:
        """Users that are kept."""
        return len(self._signals)

    def own_signals(
        self, user_idx: NDArray[np.int64], history: HistoryBatch, candidates: Tensor
    ) -> Tensor | None:
        """Signals float32 [B, K, O] of candidates int64 [B, K]; None where nothing is kept.

        Args:
            user_idx: int64 [B], whom a row's history is kept by; 0 for one that is not.

        Each row is computed by itself, so that it does not depend on the padding of its neighbours.
        """
        if not self._enabled:
            return None
        rows = [
            self._of_user(user, history, row)[candidates[row]]
            if user
            else self.extractor.own_signals(_alone(history, row), candidates[row][None])[0]
            for row, user in enumerate(user_idx.tolist())
        ]
        return torch.stack(rows)

    def _of_user(self, user: int, history: HistoryBatch, row: int) -> Tensor:
        known = self._signals.get(user)
        if known is None:
            known = self.extractor.own_signals(_alone(history, row), self._items)[0]
            self._keep(user, known)
        else:
            self._signals.move_to_end(user)
        return known

    def _keep(self, user: int, signals: Tensor) -> None:
        self._signals[user] = signals
        limit = self._max_bytes // (signals.numel() * signals.element_size())
        while len(self._signals) > limit:
            self._signals.popitem(last=False)


def _alone(history: HistoryBatch, row: int) -> HistoryBatch:
    """One row as a batch, without the padding that its neighbours need."""
    length = max(int(history.mask[row].sum()), 1)
    one = slice(row, row + 1)
    return HistoryBatch(
        history.item_idx[one, :length],
        history.timestamps[one, :length],
        history.mask[one, :length],
        history.context[one],
    )
