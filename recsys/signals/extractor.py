"""From training events to the per-item table that stage 2's signals are made of."""

from copy import copy
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.histories import Histories
from recsys.growing import GrowingRows
from recsys.schema import HistoryBatch
from recsys.signals.list_signals import WINDOW_DAYS, ListInputs, list_signals
from recsys.signals.relations import Relations
from recsys.signals.windows import RecentPopularity


class ItemRows(NamedTuple):
    """What signals are made of, one row per item; row 0 is padding.

    relations: float32 [N + 1, 3 r], their vectors. statistics: float32 [N + 1, 4 + A]: log(1 +
    events, each by its weight), each relation of the item with itself, and how much more common it
    is among users of each attribute than among all.
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
        counts = torch.from_numpy(histories.item_strengths(num_items)).float()
        affinity = _context_affinity(histories, num_items)
        alone = relations.with_itself()
        self._relations = GrowingRows(relations.vectors)
        # By itself, too: a column of a table is read slowly.
        self._log_counts = GrowingRows(counts.log1p())
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
        other._log_counts = self._log_counts.with_rows(positions, torch.zeros(len(positions)))
        return other

    def inputs(
        self, history: HistoryBatch, candidates: NDArray[np.int64], tower_scores: Tensor
    ) -> ListInputs:
        """What stage 2 reads of some lists; on the CPU.

        Args:
            history: the complete history, [B, L]. candidates: int64 [B, K], in stage-1 order, 0 =
                none and last. tower_scores: float32 [B, K, H], stage-1 scores by tower.
        """
        # Arrays, since on a few numbers their functions take a third of the time of PyTorch's.
        item_idx, times, mask = (part.numpy() for part in history[:3])
        now, length = times.max(axis=1), mask.sum(axis=1)
        # Items that came later have no events, as padding has none.
        counted = np.where(candidates > self._num_counted, 0, candidates)
        # Before the events there is the null token.
        places = np.arange(-1, self.max_history)
        source = np.maximum(length - self.max_history, 0)[:, None] + places
        is_real = (places >= 0) & (source < length[:, None])
        source *= is_real
        rows = np.arange(len(source))
        by_row = rows[:, None], source
        age = (now[:, None] - times[by_row]) * is_real
        strength = np.zeros(age.shape, np.float32)
        if history.weights is not None:
            weights = history.weights.numpy()[by_row]
            np.log(weights, out=strength, where=is_real)
        items = item_idx[mask]
        starts = torch.from_numpy(length.cumsum() - length)
        relations = self._relations.rows
        taste = F.embedding_bag(torch.from_numpy(items), relations, starts, mode="sum")
        log_counts = self._log_counts.rows.numpy().take(items)
        popular = np.bincount(rows.repeat(length), log_counts, len(length)) / length.clip(min=1)
        return ListInputs(
            torch.from_numpy(candidates),
            tower_scores,
            torch.from_numpy(self._popularity(counted, now)),
            taste,
            torch.from_numpy(popular.astype(np.float32)),
            torch.from_numpy(length.astype(np.float32)),
            history.context,
            torch.from_numpy(item_idx[by_row] * is_real),
            torch.from_numpy(age.astype(np.float32)),
            torch.from_numpy(strength),
        )

    def signals(self, inputs: ListInputs) -> Tensor:
        """Signals float32 [B, K, S], see ``signal_names``, of ``inputs``."""
        relations, statistics = (F.embedding(inputs.candidates, part) for part in self.rows)
        real = (inputs.candidates > 0)[..., None].float()
        return list_signals(inputs, relations, statistics, self.relations.blocks, real)


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
