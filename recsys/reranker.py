"""Stage 2 as it is served: what it reads of lists, then ``ListScorer`` in PyTorch or in ONNX."""

from collections.abc import Iterator
from copy import copy
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.growing import GrowingRows
from recsys.list_scorer import ItemTables, ListScorer
from recsys.models.cross_encoder import CrossEncoder, ItemTokens
from recsys.schema import HistoryBatch
from recsys.signals.extractor import SignalExtractor
from recsys.signals.list_signals import ListInputs
from recsys.text.reduction import TextReduction

_LISTS_AT_A_TIME = {"cpu": 16, "cuda": 256}
"""One by one, calls cost more; more at a time do not fit into a core's second-level cache, and on a
GPU cost hardly more than one."""
_FEWEST_CANDIDATES = 16
"""Shorter lists run alone: matrix products take other ways, and round otherwise, for few rows."""


class ScoreLists(Protocol):
    """Runs ``ListScorer``."""

    def __call__(self, inputs: ListInputs, tables: ItemTables) -> Tensor:
        """Scores float32 [B, K], on the CPU."""


class TorchScorer:
    """Runs ``ListScorer`` in PyTorch, on its own device: for a GPU, and for any batch.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: CrossEncoder) -> None:
        self.scorer = ListScorer(model).eval()
        self.device = model.signal_mean.device

    @torch.inference_mode()
    def __call__(self, inputs: ListInputs, tables: ItemTables) -> Tensor:
        """See ``ScoreLists``; the tables are on the model's device."""
        scores: Tensor = self.scorer(*(part.to(self.device) for part in inputs), *tables)
        return scores.float().cpu()


class Reranker:
    """Scores lists of candidates, the same whatever shares their batch.

    Args:
        model: the cross-encoder, which makes tokens of later items' texts. extractor: of the
            signals. reduction: of text vectors. text: float32 [N + 1, T], of all items. scorer: of
            ``model``.
    """

    def __init__(
        self,
        model: CrossEncoder,
        extractor: SignalExtractor,
        reduction: TextReduction,
        text: Tensor,
        scorer: ScoreLists,
    ) -> None:
        self.model = model
        self.extractor = extractor
        self.reduction = reduction
        self.scorer = scorer
        self._device = model.signal_mean.device
        self._tokens = [GrowingRows(part) for part in self._tokens_of(reduction(text))]
        self._tables = self._current_tables()

    @torch.inference_mode()
    def _tokens_of(self, reduced: Tensor) -> ItemTokens:
        return self.model.tokens(reduced.to(self._device))

    def with_items(self, positions: Tensor, text: Tensor) -> "Reranker":
        """With more items, or others in their place, at positions int64 [m], see ``GrowingRows``.

        This object stays as it is.

        Args:
            text: float32 [m, T].
        """
        reduced = self.reduction(text)
        other = copy(self)
        other.extractor = self.extractor.with_items(positions, reduced)
        other._tokens = [
            rows.with_rows(positions, new)
            for rows, new in zip(self._tokens, self._tokens_of(reduced), strict=True)
        ]
        other._tables = other._current_tables()
        return other

    def _current_tables(self) -> ItemTables:
        """What the scorer reads of items, on the model's device."""
        tokens = (rows.rows for rows in self._tokens)
        parts = (*self.extractor.rows, *tokens, self.extractor.relations.blocks)
        return ItemTables(*(part.to(self._device) for part in parts))

    def scores(
        self, history: HistoryBatch, item_idx: NDArray[np.int64], tower_scores: Tensor
    ) -> NDArray[np.float32]:
        """Scores float32 [B, K] of candidates; -inf where there is none.

        Args:
            history: [B, L], complete. item_idx: int64 [B, K], in stage-1 order, 0 = none and last.
            tower_scores: float32 [B, K, H], stage-1 scores by tower.
        """
        lengths = (item_idx > 0).sum(axis=1)
        found = np.full(item_idx.shape, -np.inf, np.float32)
        most = _LISTS_AT_A_TIME["cpu" if self._device.type == "cpu" else "cuda"]
        for length, rows in _alike(lengths, most):
            part = history.rows(rows)
            candidates = np.ascontiguousarray(item_idx[rows, :length])
            inputs = self.extractor.inputs(part, candidates, tower_scores[rows, :length])
            found[rows, :length] = self.scorer(inputs, self._tables).numpy()
        return found


def _alike(
    lengths: NDArray[np.int64], most: int
) -> Iterator[tuple[int, NDArray[np.int64] | slice]]:
    """Up to ``most`` rows that run together, and their length; without those of no candidates."""
    for length in np.unique(lengths[lengths > 0]).tolist():
        rows = np.flatnonzero(lengths == length)
        size = most if length >= _FEWEST_CANDIDATES else 1
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            first, last = int(some[0]), int(some[-1])
            # Of rows that follow each other nothing has to be copied.
            in_a_row = last - first + 1 == len(some)
            yield length, slice(first, last + 1) if in_a_row else some
