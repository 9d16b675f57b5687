"""Pair signals as the exported stage 2 reads them, from tables where the catalogue has one."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recsys.models.cross_encoder import CrossEncoder
from recsys.pair_signals import PAIR_NAMES, PairSignals
from recsys.shared_tensors import computed_once
from recsys.signals import FEEDBACK_ITEMS

_LARGEST = float(np.finfo(np.float16).max)


class PairLookup:
    """What the pair signals of lists amount to.

    Looking up is bound by memory, which is what the tables' form is for. A row belongs to the one
    item whose pairs with many are wanted; in a row popular items, which most candidates are, come
    first. The attention's biases have a table of their own, in half precision: the tenth of a
    percent that is lost is far below what tells candidates apart.

    Args:
        model: whose attention the biases are of. counts: [N + 1], how popular each item is.
    """

    def __init__(
        self, model: CrossEncoder, pairs: PairSignals, counts: NDArray[np.float32]
    ) -> None:
        self.pairs = pairs
        weights = torch.cat([attention.pair_bias.weight for attention, _ in model.layers])
        self._weights = weights.detach().cpu().float().T.contiguous()  # [P, layers * heads]
        self._num_rows = pairs.num_rows
        by_popularity = np.argsort(-counts, kind="stable")
        self._columns = np.argsort(by_popularity)
        self._biases: NDArray[np.float16] | None = None
        self._signals: NDArray[np.float32] | None = None
        if pairs.table is not None:
            table, order = pairs.table, torch.from_numpy(by_popularity)
            inputs = [table, order, self._weights]
            biases = computed_once(inputs, lambda: self._bias_table(table, order))
            self._biases = biases.numpy()
            signals = computed_once(inputs[:2], lambda: self._signal_table(table, order))
            self._signals = signals.numpy()

    def _bias_table(self, pairs: Tensor, by_popularity: Tensor) -> Tensor:
        """float16 [(n + 1) * n, layers * heads]: -inf in the padding's row, 0 in the null token's,
        the last.
        """
        size = self._num_rows
        biases = torch.zeros(size + 1, size, self._weights.shape[1], dtype=torch.float16)
        # Pair signals are symmetric: a row is a column, too.
        for row, own in enumerate(pairs.view(size, size, -1)):
            biases[row] = (own[by_popularity] @ self._weights).clamp(-_LARGEST, _LARGEST)
        biases[0] = -torch.inf
        return biases.flatten(end_dim=1)

    def _signal_table(self, pairs: Tensor, by_popularity: Tensor) -> Tensor:
        """float32 [n * n, 4], since four numbers are copied faster than three."""
        size = self._num_rows
        signals = pairs.view(size, size, -1)[:, by_popularity]
        return F.pad(signals, (0, -signals.shape[2] % 4)).flatten(end_dim=1)

    def attention_biases(
        self, candidates: NDArray[np.int64], recent: NDArray[np.int64]
    ) -> NDArray[np.float16]:
        """Of candidates [B, K] with the null token and events [B, L], 0 = none: [B, K, 1 + L, C].

        -inf where there is no event.
        """
        if self._biases is not None:
            rows = np.pad(recent, ((0, 0), (1, 0)), constant_values=self._num_rows)
            columns = self._columns[candidates]
            places = (rows * self._num_rows)[:, None, :] + columns[:, :, None]
            # Without the check of bounds, which costs as much as the look-up.
            found: NDArray[np.float16] = self._biases.take(places, axis=0, mode="clip")
            return found
        pairs = self.pairs(torch.from_numpy(candidates), torch.from_numpy(recent))
        biases = (pairs @ self._weights).clamp(-_LARGEST, _LARGEST)
        biases.masked_fill_(torch.from_numpy(recent == 0)[:, None, :, None], -torch.inf)
        padded: NDArray[np.float16] = F.pad(biases, (0, 0, 1, 0)).half().numpy()
        return padded

    def mean_feedback(self, candidates: NDArray[np.int64]) -> NDArray[np.float32]:
        """Mean pair signals of candidates [B, K], 0 = none, with the best others: [B, K, P]."""
        top = np.ascontiguousarray(candidates[:, :FEEDBACK_ITEMS])
        num_top = top.shape[1]
        if self._signals is not None:
            places = (top * self._num_rows)[:, :, None] + self._columns[candidates][:, None, :]
            found = self._signals.take(places, axis=0, mode="clip")
        else:
            found = self.pairs(torch.from_numpy(top), torch.from_numpy(candidates)).numpy()
        itself = np.arange(num_top)
        found[:, itself, itself] = 0.0
        others = np.tile((top > 0).sum(axis=1, dtype=np.float32)[:, None], candidates.shape[1])
        others[:, :num_top] -= 1.0
        mean: NDArray[np.float32] = found.sum(axis=1)[:, :, : len(PAIR_NAMES)]
        mean /= np.maximum(others, 1.0)[:, :, None]
        return mean
