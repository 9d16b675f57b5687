"""What stage 2 knows of a candidate besides its text: stage-1 scores, popularity, co-occurrence.

Everything here is computed by one class for training and serving, from training events alone.
"""

from copy import copy

import numpy as np
import torch
from torch import Tensor

from recsys.data.histories import Histories, latest_events
from recsys.item_graph import ItemGraph
from recsys.models.cross_encoder import RankingBatch
from recsys.pair_signals import PAIR_NAMES, PairSignals
from recsys.schema import HistoryBatch

_WINDOW_DAYS = (1, 7, 30)
_SECONDS_PER_DAY = 86_400
_TOP_MATCHES = 3
_PRIOR_EVENTS = 10.0
_FEEDBACK_ITEMS = 20
# Bounds memory, which grows with candidates x events.
_MAX_MATCHED = 1000


def signal_names(num_towers: int) -> list[str]:
    """Names of the signals, in the order of the last dimension of ``SignalExtractor.signals``."""
    return [
        "score",
        *[f"score_{i}" for i in range(num_towers)],
        *[f"{name}_{kind}" for name in PAIR_NAMES for kind in ("sum", "mean", "best")],
        *[f"{name}_top" for name in PAIR_NAMES],
        "log_rank",
        "log_popularity",
        "relative_popularity",
        "log_history_length",
        "context_affinity",
        *[f"{kind}_{days}d" for days in _WINDOW_DAYS for kind in ("popularity", "trend")],
    ]


class SignalExtractor:
    """Computes signals of (history, candidate) pairs from one set of training events.

    Args:
        histories: the training events. num_items: items are 1..num_items.
        session, co_occurrence: item graphs of the same events.
        text: float32 [N + 1, T], L2-normalised text vectors; row 0 zeros.
    """

    def __init__(
        self,
        histories: Histories,
        num_items: int,
        session: ItemGraph,
        co_occurrence: ItemGraph,
        text: Tensor,
    ) -> None:
        self.num_items = num_items
        counts = torch.from_numpy(histories.item_counts(num_items)).float()
        self.log_counts = counts.log1p()
        self.share = counts / counts.sum().clamp(min=1)
        self.affinity = _context_affinity(histories, num_items)
        self.graphs = {"session": session, "co_occurrence": co_occurrence}
        self.pairs = PairSignals(session, co_occurrence, text)
        self.windows = _WindowCounts(histories)

    def with_text(self, text: Tensor) -> "SignalExtractor":
        """For more items, of which there are no events: float32 [M + 1, T], the first the same.

        This object stays as it is.
        """
        other = copy(self)
        other.pairs = self.pairs.with_text(text)
        return other

    def ranking_batch(
        self, history: HistoryBatch, candidates: Tensor, signals: Tensor, max_history: int
    ) -> RankingBatch:
        """Everything the cross-encoder reads; it attends to the latest ``max_history`` events."""
        recent = latest_events(history, max_history)
        return RankingBatch(
            candidates,
            signals,
            recent.item_idx,
            recent.mask,
            event_ages(recent),
            self.pairs(candidates, recent.item_idx),
        )

    def signals(
        self,
        history: HistoryBatch,
        candidates: Tensor,
        tower_scores: Tensor,
    ) -> Tensor:
        """Signals of each candidate, standardised within its list where only the order matters.

        Args:
            history: the complete history, [B, L]. candidates: int64 [B, K], in stage-1 order,
                0 = none. tower_scores: float [B, K, H], stage-1 scores by tower; they add up to
                the stage-1 score.

        Returns:
            float32 [B, K, S]; see ``signal_names``.
        """
        relative = [
            tower_scores.sum(dim=2, keepdim=True),
            tower_scores,
            self._matches(history, candidates),
            self._feedback(candidates),
        ]
        # Items that came later have no events, as padding has none.
        counted = candidates.masked_fill(candidates > self.num_items, 0)
        taste = history.item_idx.masked_fill(history.item_idx > self.num_items, 0)
        affinity = torch.einsum("bka,ba->bk", self.affinity[counted], history.context)
        mask = candidates > 0
        absolute = [
            _log_ranks(candidates),
            *self._popularity(history._replace(item_idx=taste), counted),
            affinity,
            *self._recent_popularity(history, counted),
        ]
        columns = [_standardized(torch.cat(relative, dim=2), mask), torch.stack(absolute, dim=2)]
        return torch.cat(columns, dim=2) * mask[:, :, None]

    def _popularity(self, history: HistoryBatch, candidates: Tensor) -> list[Tensor]:
        length = history.mask.sum(dim=1).clamp(min=1).float()
        taste = self.log_counts[history.item_idx] * history.mask
        mean = taste.sum(dim=1) / length
        deviation = (taste.square().sum(dim=1) / length - mean.square()).clamp(min=0.01).sqrt()
        popularity = self.log_counts[candidates]
        return [
            popularity - 4.0,
            (popularity - mean[:, None]) / deviation[:, None],
            (length.log() - 4.0)[:, None].expand_as(popularity),
        ]

    def _matches(self, history: HistoryBatch, candidates: Tensor) -> Tensor:
        """Sum, mean and mean of the best few pair signals over the history: [B, K, 3 P]."""
        history = latest_events(history, _MAX_MATCHED)
        length = history.mask.sum(dim=1).clamp(min=1).float()[:, None, None]
        pairs = self.pairs(candidates, history.item_idx)  # [B, K, L, P]
        pairs = pairs.masked_fill(~history.mask[:, None, :, None], 0.0)
        total = pairs.sum(dim=2)
        few = min(_TOP_MATCHES, pairs.shape[2])
        best = pairs.topk(few, dim=2).values.mean(dim=2)
        kinds = torch.stack([total / length.sqrt(), total / length, best], dim=3)
        return kinds.flatten(start_dim=2)

    def _feedback(self, candidates: Tensor) -> Tensor:
        """Mean pair signals with the list's other top candidates, as if those were history.

        Pseudo-relevance feedback (Croft and Harper 1979): the best candidates of stage 1 are good
        enough on average to tell about the others. float [B, K, P].
        """
        top = candidates[:, :_FEEDBACK_ITEMS]
        others = (top[:, None, :] != candidates[:, :, None]) & (top[:, None, :] > 0)
        total = (self.pairs(candidates, top) * others[..., None]).sum(dim=2)
        return total / others.sum(dim=2, keepdim=True).clamp(min=1)

    def _recent_popularity(self, history: HistoryBatch, candidates: Tensor) -> list[Tensor]:
        """Popularity among all users in the time up to the history's last event."""
        now = history.timestamps.max(dim=1).values
        columns = []
        for days in _WINDOW_DAYS:
            count, total = self.windows(candidates, now, days * _SECONDS_PER_DAY)
            expected = total[:, None] * self.share[candidates]
            columns += [count.log1p() - 1.0, ((count + 1.0) / (expected + 1.0)).log()]
        return columns


def event_ages(recent: HistoryBatch) -> Tensor:
    """Age of each event, see ``RankingBatch``: float32 [B, L], 0 where padded."""
    last = recent.timestamps.max(dim=1, keepdim=True).values
    age = (last - recent.timestamps).clamp(min=0).double().log1p().float() / 10.0
    return age * recent.mask


def _log_ranks(candidates: Tensor) -> Tensor:
    """Of each place in stage 1's order: float32 [B, K]."""
    ranks = torch.arange(1, candidates.shape[1] + 1)
    return (3.0 - ranks.float().log()).expand(candidates.shape)


def _context_affinity(histories: Histories, num_items: int) -> Tensor:
    """How much more common items are among users of an attribute than among all: [N + 1, A].

    The logarithm of the ratio of the two; items with few events are drawn towards 0.
    """
    matrix = histories.matrix(num_items)
    counts = torch.from_numpy(matrix.sum(axis=0)).reshape(-1, 1)
    by_attribute = torch.from_numpy(matrix.T @ histories.context)  # [N + 1, A]
    # At least one event, so that no share is 0.
    share = by_attribute.sum(dim=0).clamp(min=1.0) / counts.sum().clamp(min=1.0)
    return ((by_attribute + _PRIOR_EVENTS * share) / ((counts + _PRIOR_EVENTS) * share)).log()


class _WindowCounts:
    """Counts events of an item within a time window, by binary search over sorted keys."""

    def __init__(self, histories: Histories) -> None:
        times = histories.timestamps
        self.origin = int(times.min()) if len(times) else 0
        self.span = int(times.max()) - self.origin if len(times) else 0
        # Times are shifted by a margin that no window reaches across, and items lie so far apart
        # in the keys that no window of one item meets events of the next.
        self.margin = 2 * max(_WINDOW_DAYS) * _SECONDS_PER_DAY
        self.stride = self.span + 4 * self.margin
        shifted = times - self.origin + self.margin
        self.keys = torch.from_numpy(np.sort(histories.item_idx * self.stride + shifted))
        self.times = torch.from_numpy(np.sort(shifted))

    def __call__(self, items: Tensor, now: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Events of items [B, K] in [now - width, now) seconds, and of all items: [B].

        One-sided, since nothing is known of what comes after ``now`` when lists are served. A time
        far outside of the training data is taken for one just outside of it.
        """
        time = (now - self.origin + self.margin).clamp(0, self.span + 2 * self.margin)
        key = items * self.stride + time[:, None]
        return _before(self.keys, key, width), _before(self.times, time, width)


def _before(ordered: Tensor, end: Tensor, width: int) -> Tensor:
    """How many values of the ordered ones lie in [end - width, end)."""
    return (torch.searchsorted(ordered, end) - torch.searchsorted(ordered, end - width)).float()


def _standardized(values: Tensor, mask: Tensor) -> Tensor:
    """Zero mean and unit variance over the real candidates: float [B, K, S], bool [B, K]."""
    real = mask[:, :, None]
    count = real.sum(dim=1, keepdim=True).clamp(min=1)
    centred = (values - (values * real).sum(dim=1, keepdim=True) / count) * real
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred / (variance.sqrt() + 1e-6)
