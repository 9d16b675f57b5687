"""Pair signals as the exported stage 2 reads them, from tables where the catalogue has one."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from recsys.models.cross_encoder import CrossEncoder
from recsys.pair_signals import PairSignals
from recsys.signals import FEEDBACK_ITEMS

_LARGEST = float(np.finfo(np.float16).max)


class PairLookup:
    """What a list's pair signals amount to, for one list at a time.

    The attention's biases have a table of their own, in half precision: looking them up is bound by
    memory, and the tenth of a percent that is lost is far below what tells candidates apart.

    Args:
        model: whose attention the biases are of.
    """

    def __init__(self, model: CrossEncoder, pairs: PairSignals) -> None:
        self.pairs = pairs
        weights = torch.cat([attention.pair_bias.weight for attention, _ in model.layers])
        self._weights = weights.detach().cpu().float().T.contiguous()  # [P, layers * heads]
        self._num_rows = pairs.num_rows
        self._biases: NDArray[np.float16] | None = None
        self._signals: NDArray[np.float32] | None = None
        if pairs.table is not None:
            self._signals = pairs.table.numpy()
            self._biases = self._bias_table(self._signals)

    def _bias_table(self, signals: NDArray[np.float32]) -> NDArray[np.float16]:
        """[n * (n + 1), layers * heads]: a row of columns per item; the last is the null token's,
        0, the first the padding's, -inf.
        """
        size, width = self._num_rows, self._weights.shape[1]
        table = np.zeros((size, size + 1, width), np.float16)
        weights = self._weights.numpy()
        for row, own in enumerate(signals.reshape(size, size, -1)):
            table[row, :size] = np.clip(own @ weights, -_LARGEST, _LARGEST)
        table[:, 0] = -np.inf
        return table.reshape(-1, width)

    def attention_biases(
        self, candidates: NDArray[np.int64], recent: NDArray[np.int64]
    ) -> NDArray[np.float16]:
        """Of candidates [K] with the null token and events [L], 0 = none: [K, 1 + L, C]."""
        if self._biases is not None:
            columns = np.concatenate([[self._num_rows], recent])
            rows = candidates * (self._num_rows + 1)
            # Without the check of bounds, which costs as much as the look-up.
            found: NDArray[np.float16] = np.take(
                self._biases, rows[:, None] + columns, axis=0, mode="clip"
            )
            return found
        one, events = torch.from_numpy(candidates)[None], torch.from_numpy(recent)[None]
        biases = (self.pairs(one, events)[0] @ self._weights).clamp(-_LARGEST, _LARGEST)
        biases[:, recent == 0] = -torch.inf
        padded: NDArray[np.float16] = F.pad(biases, (0, 0, 1, 0)).half().numpy()
        return padded

    def mean_feedback(self, candidates: NDArray[np.int64]) -> NDArray[np.float32]:
        """Mean pair signals of candidates [K] with the best others: [K, P]."""
        top = candidates[:FEEDBACK_ITEMS]
        if self._signals is not None:
            pairs = (candidates * self._num_rows)[:, None] + top
            found = self._signals.take(pairs, axis=0, mode="clip")
        else:
            one = torch.from_numpy(candidates)[None]
            found = self.pairs(one, one[:, : len(top)])[0].numpy()
        itself = np.arange(len(top))
        found[itself, itself] = 0.0
        others = np.full((len(candidates), 1), len(top), np.float32)
        others[: len(top)] -= 1
        # A sum over the middle dimension, as the faster matrix product.
        summing = np.tile(np.eye(found.shape[2], dtype=np.float32), (len(top), 1))
        mean: NDArray[np.float32] = found.reshape(len(found), -1) @ summing
        mean /= np.maximum(others, 1.0)
        return mean
