"""The re-ranker: candidate tokens attend to the history's tokens, layer by layer.

A candidate's token is made of its signals, a history token of its age. Signals between the two
(co-occurrence in a session, similarity of the frozen text vectors) enter as attention biases. The
text vectors themselves may be added to the tokens. The score starts as stage 1's and the network
learns a correction.
"""

from copy import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.layers import ResidualMLP


class RankingBatch(NamedTuple):
    """What the cross-encoder reads of B requests with K candidates and L history events each.

    candidates: int64 [B, K], 0 = none. signals: float32 [B, K, S]; the first is the stage-1 score.
    history: int64 [B, L]. history_mask: bool [B, L], True = real. history_age: float32 [B, L], in
    0..about 2, grows with the log of the time before the last event. pairs: float32 [B, K, L, P].
    """

    candidates: Tensor
    signals: Tensor
    history: Tensor
    history_mask: Tensor
    history_age: Tensor
    pairs: Tensor


class CrossAttention(nn.Module):
    """Multi-head attention of candidates to history, biased by their pair signals.

    A learned null token lets a candidate attend to nothing, also when the history is empty.
    """

    def __init__(self, dim: int, num_heads: int, num_pairs: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.pair_bias = nn.Linear(num_pairs, num_heads, bias=False)
        self.null = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, history: Tensor, mask: Tensor, pairs: Tensor) -> Tensor:
        """x: [B, K, D]; history: [B, L, D]; mask: bool [B, L]; pairs: [B, K, L, P] -> [B, K, D]."""
        return self.attend(x, *self.keys_and_values(history), self.biases(mask, pairs))

    def biases(self, mask: Tensor, pairs: Tensor) -> Tensor:
        """What pair signals add for the null token and each event: [B, heads, K, 1 + L].

        -inf where there is no event, and 0 for the null token. Arguments as of ``forward``.
        """
        bias = self.pair_bias(pairs).masked_fill(~mask[:, None, :, None], -torch.inf)
        return F.pad(bias.permute(0, 3, 1, 2), (1, 0))

    def keys_and_values(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """Of the null token and history tokens [B, L, D]: [B, heads, 1 + L, D / heads] each."""
        memory = torch.cat([self.null.expand_as(history[:, :1]), history], dim=1)
        key, value = (self._heads(part) for part in self.key_value(memory).chunk(2, dim=2))
        return key, value

    def attend(self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """x: [B, K, D] or [B * K, D]; key, value: as from ``keys_and_values``; bias: as from
        ``biases`` -> the shape of x.
        """
        query = self.query(self.norm(x)).view(key.shape[0], -1, x.shape[-1])
        attended = F.scaled_dot_product_attention(
            self._heads(query),
            key,
            value,
            attn_mask=bias,
            dropout_p=self.dropout if self.training else 0.0,
        )
        merged = attended.transpose(1, 2).reshape(x.shape)
        out: Tensor = x + F.dropout(self.out(merged), self.dropout, self.training)
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """[..., n, D] -> [..., heads, n, D / heads]"""
        return x.view(*x.shape[:-1], self.num_heads, -1).transpose(-3, -2)


class CrossEncoder(nn.Module):
    """Scores candidates against a history.

    Args:
        text: float32 [N + 1, T], frozen text vectors; row 0 zeros. num_signals, num_pairs: widths
            of the signals and the pair signals.
        dim, num_heads, num_layers, dropout: of the transformer.
        correction: how much of what it learns to add to stage 1's score is added when serving, in
            0..1. What is learned from a user's few lists is in part their noise, which a share of
            it carries to the top of the list less than it carries what is true.
        text_tokens: whether tokens hold a projection of their item's text vector. It lets the
            network learn which items go with which, and also by heart which candidates a user's
            lists called irrelevant: those that are held out elsewhere included.
    """

    text: Tensor
    stage1: Tensor

    def __init__(
        self,
        text: Tensor,
        num_signals: int,
        num_pairs: int,
        *,
        dim: int = 64,
        num_heads: int = 4,
        num_layers: int = 2,
        dropout: float = 0.2,
        correction: float = 1.0,
        text_tokens: bool = False,
    ) -> None:
        super().__init__()
        if not 0.0 <= correction <= 1.0:
            raise ValueError(f"expected correction in 0..1, found {correction}")
        self.correction = correction
        self.register_buffer("text", text, persistent=False)
        self.text_projections = (
            nn.ModuleDict(
                {
                    side: nn.Linear(text.shape[1], dim, bias=False)
                    for side in ("candidates", "history")
                }
            )
            if text_tokens
            else None
        )
        self.history_age = nn.Linear(1, dim)
        self.history_norm = nn.LayerNorm(dim)
        self.signals = nn.Sequential(nn.Linear(num_signals, dim), nn.GELU(), nn.Linear(dim, dim))
        self.input_dropout = nn.Dropout(dropout)
        self.attention = nn.ModuleList(
            CrossAttention(dim, num_heads, num_pairs, dropout) for _ in range(num_layers)
        )
        self.feed_forward = nn.ModuleList(
            ResidualMLP(dim, 2 * dim, dropout) for _ in range(num_layers)
        )
        self.head = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(dim, 1),
        )
        self.linear = nn.Linear(num_signals, 1, bias=False)
        # The weights with which the score is stage 1's.
        self.register_buffer("stage1", torch.eye(1, num_signals), persistent=False)
        # It is at the start: the network can only learn to improve on it.
        with torch.no_grad():
            self.linear.weight.copy_(self.stage1)
            for parameter in self.head[-1].parameters():
                parameter.zero_()

    @property
    def layers(self) -> list[tuple[CrossAttention, ResidualMLP]]:
        """Attention and feed-forward block of each layer."""
        return [
            (attention, feed_forward)
            for attention, feed_forward in zip(self.attention, self.feed_forward, strict=True)
            if isinstance(attention, CrossAttention) and isinstance(feed_forward, ResidualMLP)
        ]

    def with_text(self, text: Tensor) -> "CrossEncoder":
        """The same weights over the text of more items: float32 [M + 1, T], the first the same."""
        other = copy(self)
        # A module's copy shares the dictionary of its buffers.
        other._buffers = {**self._buffers, "text": text.to(self.text.device)}
        return other

    def forward(self, batch: RankingBatch) -> Tensor:
        """Scores float [B, K]; -inf where there is no candidate."""
        x = self.signals(batch.signals)
        history = self.history_age(batch.history_age[:, :, None])
        if self.text_projections is not None:
            x = x + self._text(batch.candidates, self.text_projections["candidates"])
            history = history + self._text(batch.history, self.text_projections["history"])
        x, history = self.input_dropout(x), self.history_norm(history)
        for attention, feed_forward in self.layers:
            x = feed_forward(attention(x, history, batch.history_mask, batch.pairs))
        return self.scores(x, batch.signals).masked_fill(batch.candidates == 0, -torch.inf)

    def scores(self, x: Tensor, signals: Tensor) -> Tensor:
        """Scores [..., K] of tokens [..., K, D] with signals [..., K, S]."""
        correction = 1.0 if self.training else self.correction
        weight = torch.lerp(self.stage1, self.linear.weight, correction)
        scores = F.linear(signals, weight) + correction * self.head(x)
        found: Tensor = scores.squeeze(-1)
        return found

    def _text(self, item_idx: Tensor, projection: nn.Module) -> Tensor:
        """Projected text int64 [B, n] -> [B, n, D]; each distinct item is projected once."""
        distinct, position = torch.unique(item_idx, return_inverse=True)
        # Unit vectors of 384 entries are small next to the signals: bring them to unit variance.
        projected: Tensor = projection(self.text[distinct] * self.text.shape[1] ** 0.5)
        return F.embedding(position, projected)
