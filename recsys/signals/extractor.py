"""From training events to the per-item table that stage 2's signals are made of."""

from copy import copy
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.histories import Histories, latest_events
from recsys.growing import GrowingRows
from recsys.schema import HistoryBatch
from recsys.signals.list_signals import WINDOW_DAYS, ListInputs, list_signals
from recsys.signals.relations import Relations
from recsys.signals.windows import RecentPopularity


class ItemRows(NamedTuple):
    """What signals are made of, one row per item; row 0 is padding.

    relations: float32 [N + 1, 3 r], their vectors. statistics: float32 [N + 1, 4 + A]: log(1 +
    events), each relation of the item with itself, and how much more common it is among users of
    each attribute than among all.
    """

    relations: Tensor
    statistics: Tensor


class SignalExtractor:
    """Prepares ``ListInputs``: in training and serving alike, and for a user of whom nothing is in
    memory at the same cost as for any other.

    Args:
        histories: the training events. num_items: items are 1..num_items. relations: of the items.
        max_history: the latest events that candidates attend to.
    """

    def __init__(
        self, histories: Histories, num_items: int, relations: Relations, max_history: int
    ) -> None:
        self.relations = relations
        self.max_history = max_history
        self._num_counted = num_items
        counts = torch.from_numpy(histories.item_counts(num_items)).float()
        affinity = _context_affinity(histories, num_items)
        alone = relations.with_itself()
        self._relations = GrowingRows(relations.vectors)
        self._statistics = GrowingRows(torch.cat([counts.log1p()[:, None], alone, affinity], dim=1))
        self._popularity = RecentPopularity(histories, num_items, WINDOW_DAYS)

    @property
    def rows(self) -> ItemRows:
        """Of all items, as they are now."""
        return ItemRows(self._relations.rows, self._statistics.rows)

    def with_items(self, positions: Tensor, text: Tensor) -> "SignalExtractor":
        """With items of which there are no events, at positions int64 [m], see ``GrowingRows``.

        This object stays as it is.

        Args:
            text: float32 [m, r], their reduced text.
        """
        later = self.relations.later(text)
        alone = later.with_itself()
        missing = (1, self._statistics.rows.shape[1] - 1 - alone.shape[1])
        other = copy(self)
        other._relations = self._relations.with_rows(positions, later.vectors)
        other._statistics = self._statistics.with_rows(positions, F.pad(alone, missing))
        return other

    def inputs(
        self, history: HistoryBatch, candidates: NDArray[np.int64], tower_scores: Tensor
    ) -> ListInputs:
        """What stage 2 reads of some lists; on the CPU.

        Args:
            history: the complete history, [B, L]. candidates: int64 [B, K], in stage-1 order, 0 =
                none and last. tower_scores: float32 [B, K, H], stage-1 scores by tower.
        """
        last = history.timestamps.max(dim=1, keepdim=True).values
        # Items that came later have no events, as padding has none.
        counted = np.where(candidates > self._num_counted, 0, candidates)
        popularity = self._popularity(counted, last[:, 0].numpy())
        length = history.mask.sum(dim=1)
        recent = latest_events(history, self.max_history)
        # Before the events there is the null token.
        missing = (1, self.max_history - recent.mask.shape[1])
        age = (last - recent.timestamps).clamp(min=0) * recent.mask
        items = history.item_idx[history.mask]
        starts = length.cumsum(dim=0) - length
        popular = F.embedding_bag(items, self._statistics.rows[:, :1], starts, mode="mean")
        return ListInputs(
            torch.from_numpy(candidates),
            tower_scores,
            torch.from_numpy(popularity),
            F.embedding_bag(items, self._relations.rows, starts, mode="sum"),
            popular[:, 0],
            length.float(),
            history.context,
            F.pad(recent.item_idx, missing),
            F.pad(age, missing).float(),
        )

    def signals(self, inputs: ListInputs) -> Tensor:
        """Signals float32 [B, K, S], see ``signal_names``, of ``inputs``."""
        relations, statistics = (part[inputs.candidates] for part in self.rows)
        return list_signals(inputs, relations, statistics, self.relations.signs)


def _context_affinity(histories: Histories, num_items: int) -> Tensor:
    """How much more common items are among users of an attribute than among all: [N + 1, A].

    The logarithm of the ratio of the two, drawn towards 0 as by as many further events of each
    item, spread as all are, as items have on average.
    """
    matrix = histories.matrix(num_items)
    counts = np.asarray(matrix.sum(axis=0)).reshape(-1, 1)
    prior = max(float(counts.mean()), 1e-6)
    by_attribute = matrix.T @ histories.context  # [N + 1, A]
    # At least one event, so that no share is 0.
    share = np.maximum(by_attribute.sum(axis=0), 1.0) / max(float(counts.sum()), 1.0)
    ratio = (by_attribute + prior * share) / ((counts + prior) * share)
    return torch.from_numpy(np.log(ratio).astype(np.float32))
