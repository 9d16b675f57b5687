"""The re-ranker: each candidate's token attends to the tokens of the history's latest events.

A candidate's token is made of its signals, an event's token of the item's frozen text, its age and,
where events differ in it, its strength. Text meets text: a candidate's text asks the events' (in
the attention's logits), and what they answer is multiplied with it. By itself it never enters the
candidate's token, where the network would learn by heart which candidates were called irrelevant:
those that are held out elsewhere included. How two items go together (see ``Relations``) adds to
the logits. The score starts as stage 1's and the network learns a correction.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.cross_attention import AttendedEvents, CrossAttention
from recsys.models.layers import ResidualMLP, drop_rows


class ItemTokens(NamedTuple):
    """What the cross-encoder makes of items' texts once: float32 [N + 1, text_rank + D] each.

    candidates: of the items as candidates, history: as events. Row 0, of padding, is zeros.
    """

    candidates: Tensor
    history: Tensor


class RankingBatch(NamedTuple):
    """What the cross-encoder reads of B lists with K candidates and L history events each.

    Events are led by a null token, at place 0, which has zeros for all else.

    signals: float32 [B, K, S]; the first is the stage-1 score. candidate_tokens: float32 [B, K, E],
    history_tokens: float32 [B, 1 + L, E], rows of ``ItemTokens``. history_mask: bool [B, 1 + L],
    True = real. history_age: float32 [B, 1 + L], seconds before the last event. history_strength:
    float32 [B, 1 + L], the logarithms of the events' weights, 0 where they are alike.
    candidate_relations: float32 [B, K, W], history_relations: float32 [B, 1 + L, W], vectors of the
    items. blocks: float32 [W, P]; ``(left * right) @ blocks`` is how two go together in P ways.
    """

    signals: Tensor
    candidate_tokens: Tensor
    history_tokens: Tensor
    history_mask: Tensor
    history_age: Tensor
    history_strength: Tensor
    candidate_relations: Tensor
    history_relations: Tensor
    blocks: Tensor


class CrossEncoder(nn.Module):
    """Scores candidates against a history.

    Args:
        num_signals, num_relations, text_dim: widths of what it reads, see ``RankingBatch``.
        dim, num_heads, num_layers, dropout: of the transformer. text_rank: to how many dimensions
            it brings a text. products: see ``CrossAttention``. row_dropout: shares of the texts and
            of the events that are left out in training. strengths: whether it reads
            ``history_strength``; only where events differ in it there is something to learn.
    """

    signal_mean: Tensor
    signal_scale: Tensor
    age_mean: Tensor
    age_scale: Tensor
    strength_mean: Tensor
    strength_scale: Tensor
    relation_scale: Tensor

    def __init__(
        self,
        num_signals: int,
        num_relations: int,
        text_dim: int,
        *,
        dim: int = 32,
        num_heads: int = 2,
        num_layers: int = 1,
        text_rank: int = 16,
        products: bool = True,
        dropout: float = 0.2,
        row_dropout: float = 0.05,
        strengths: bool = False,
    ) -> None:
        super().__init__()
        self.text_rank = text_rank
        self.row_dropout = row_dropout
        # Statistics of the training lists.
        self.register_buffer("signal_mean", torch.zeros(num_signals))
        self.register_buffer("signal_scale", torch.ones(num_signals))
        self.register_buffer("age_mean", torch.zeros(()))
        self.register_buffer("age_scale", torch.ones(()))
        self.register_buffer("relation_scale", torch.ones(num_relations))
        self.candidate_text = nn.Linear(text_dim, text_rank, bias=False)
        self.history_text = nn.Linear(text_dim, text_rank, bias=False)
        self.asked = nn.Linear(text_rank, dim, bias=False)
        self.told = nn.Linear(text_rank, dim, bias=False)
        self.history_age = nn.Linear(1, dim)
        self.history_strength = nn.Linear(1, dim, bias=False) if strengths else None
        if self.history_strength is not None:
            nn.init.zeros_(self.history_strength.weight)
            self.register_buffer("strength_mean", torch.zeros(()))
            self.register_buffer("strength_scale", torch.ones(()))
        self.history_norm = nn.LayerNorm(dim)
        self.signals = nn.Linear(num_signals, dim)
        self.mix = nn.Sequential(nn.ReLU(), nn.Linear(dim, dim), nn.Dropout(dropout))
        self.attention = nn.ModuleList(
            CrossAttention(dim, num_heads, text_rank, num_relations, products=products)
            for _ in range(num_layers)
        )
        self.feed_forward = nn.ModuleList(
            ResidualMLP(dim, 2 * dim, dropout, nn.ReLU) for _ in range(num_layers)
        )
        self.head = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, 1)
        )
        self.linear = nn.Linear(num_signals, 1, bias=False)
        # The score is stage 1's at the start: the network can only learn to improve on it.
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.weight[:, 0] = 1.0
            for parameter in self.head[-1].parameters():
                parameter.zero_()

    @torch.no_grad()
    def fit_statistics(
        self,
        signals: Tensor,
        age: Tensor,
        related: Tensor,
        relative: int,
        strength: Tensor | None = None,
    ) -> None:
        """Set the scales of inputs.

        Args:
            signals: float32 [n, S], of real candidates; the first ``relative`` are on one scale
                already. age: float32 [m], of real events. related: float32 [o, P], dot products of
                real candidates' and events' relations. strength: float32 [m], of real events;
                None where it is not read.
        """
        self.signal_mean[relative:] = signals[:, relative:].mean(dim=0)
        self.signal_scale[relative:] = 1.0 / signals[:, relative:].std(dim=0).clamp(min=1e-3)
        ages = age.log1p()
        self.age_mean.copy_(ages.mean())
        self.age_scale.copy_(1.0 / ages.std().clamp(min=1e-3))
        if self.history_strength is not None and strength is not None:
            self.strength_mean.copy_(strength.mean())
            self.strength_scale.copy_(1.0 / strength.std().clamp(min=0.1))
        self.relation_scale.copy_(1.0 / related.square().mean(dim=0).sqrt().clamp(min=1e-6))

    def tokens(self, text: Tensor) -> ItemTokens:
        """Of items with text float32 [..., text_dim]: float32 [..., E] each."""
        candidate, history = self.candidate_text(text), self.history_text(text)
        return ItemTokens(
            torch.cat([candidate, self.asked(candidate)], dim=-1),
            torch.cat([history, self.told(history)], dim=-1),
        )

    def forward(self, batch: RankingBatch) -> Tensor:
        """Scores float [B, K]."""
        # From here on one row per candidate, B K of them.
        signals = batch.signals.flatten(end_dim=1)
        age = (batch.history_age.log1p() - self.age_mean) * self.age_scale
        mask, candidates, events = batch.history_mask, batch.candidate_tokens, batch.history_tokens
        if self.training:
            candidates, events = self._without_some(candidates), self._without_some(events)
            kept = torch.rand(mask.shape, device=mask.device) >= self.row_dropout
            kept[:, 0] = True
            mask = mask & kept
        rank = self.text_rank
        told = events[..., rank:] + self.history_age(age[:, :, None])
        if self.history_strength is not None:
            strength = (batch.history_strength - self.strength_mean) * self.strength_scale
            told = told + self.history_strength(strength[:, :, None])
        told = self.history_norm(told)
        attended = AttendedEvents(told, events[..., :rank], batch.history_relations, age, mask)
        blocks = batch.blocks * self.relation_scale
        x: Tensor = self.mix(self._standardized(self.signals, signals))
        for attention, feed_forward in self.layers:
            x = x + attention(
                x,
                candidates[..., rank:],
                candidates[..., :rank],
                batch.candidate_relations,
                blocks,
                attended,
            )
            x = feed_forward(x)
        scores: Tensor = self._standardized(self.linear, signals) + self.head(x)
        return scores.view(batch.signals.shape[:2])

    def _standardized(self, layer: nn.Linear, signals: Tensor) -> Tensor:
        """A layer's output for signals, float [n, S], brought to unit scale: in its weights."""
        weight = layer.weight * self.signal_scale
        shift = -(weight @ self.signal_mean)
        return F.linear(signals, weight, shift if layer.bias is None else shift + layer.bias)

    @property
    def layers(self) -> list[tuple[CrossAttention, ResidualMLP]]:
        """Attention and feed-forward block of each layer."""
        return [
            (attention, feed_forward)
            for attention, feed_forward in zip(self.attention, self.feed_forward, strict=True)
            if isinstance(attention, CrossAttention) and isinstance(feed_forward, ResidualMLP)
        ]

    def _without_some(self, tokens: Tensor) -> Tensor:
        """Tokens [B, n, E] without the texts of some."""
        return drop_rows(tokens.flatten(end_dim=1), self.row_dropout, True).view_as(tokens)
