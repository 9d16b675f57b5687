"""Stage 2 as one module: from candidates, stage 1's scores and a history to scores.

The same in PyTorch and, exported, in ONNX. Nothing in it crosses lists.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.cross_encoder import CrossEncoder, RankingBatch
from recsys.signals.list_signals import ListInputs, list_signals


class ItemTables(NamedTuple):
    """What stage 2 reads of items, one row each, row 0 of padding.

    relations: float32 [N + 1, 3 r], statistics: float32 [N + 1, 4 + A], of ``SignalExtractor``.
    candidate_tokens, history_tokens: float32 [N + 1, E], of ``CrossEncoder.tokens``. blocks:
    float32 [3 r, 3], of ``Relations``.
    """

    relations: Tensor
    statistics: Tensor
    candidate_tokens: Tensor
    history_tokens: Tensor
    blocks: Tensor


class ListScorer(nn.Module):
    """A cross-encoder with the signals that it reads."""

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        candidates: Tensor,
        tower_scores: Tensor,
        popularity: Tensor,
        taste: Tensor,
        popular_taste: Tensor,
        length: Tensor,
        context: Tensor,
        recent: Tensor,
        age: Tensor,
        strength: Tensor,
        relations: Tensor,
        statistics: Tensor,
        candidate_tokens: Tensor,
        history_tokens: Tensor,
        blocks: Tensor,
    ) -> Tensor:
        """``ListInputs``, of lists without empty places, then ``ItemTables`` -> float32 [B, K]."""
        inputs = ListInputs(
            candidates,
            tower_scores,
            popularity,
            taste,
            popular_taste,
            length,
            context,
            recent,
            age,
            strength,
        )
        own = F.embedding(candidates, relations)
        signals = list_signals(inputs, own, F.embedding(candidates, statistics), blocks)
        batch = RankingBatch(
            signals,
            F.embedding(candidates, candidate_tokens),
            F.embedding(recent, history_tokens),
            event_mask(recent),
            age,
            strength,
            own,
            F.embedding(recent, relations),
            blocks,
        )
        scores: Tensor = self.model(batch)
        return scores


def event_mask(recent: Tensor) -> Tensor:
    """Which places int64 [B, 1 + L] of ``ListInputs.recent`` count, that of the null token too."""
    return torch.cat([recent[:, :1] == 0, recent[:, 1:] > 0], dim=1)
