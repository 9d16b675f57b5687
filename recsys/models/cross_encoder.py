"""The re-ranker: each candidate's token attends to the tokens of the history's latest events.

A candidate's token is made of its signals, an event's token of the item's frozen text and its age.
Text meets text: a candidate's text asks the events' (in the attention's logits), and what they
answer is multiplied with it. By itself it never enters the candidate's token, where the network
would learn by heart which candidates were called irrelevant: those that are held out elsewhere
included. How two items go together (see ``Relations``) adds to the logits. The score starts as
stage 1's and the network learns a correction.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.layers import ResidualMLP, drop_rows

_LITTLE, _TINY = -1e9, 1e-12
"""A logit next to which nothing else counts, and a weight that is next to none; both finite."""


class ItemTokens(NamedTuple):
    """What the cross-encoder makes of items' texts once: float32 [N + 1, text_rank + D] each.

    candidates: of the items as candidates, history: as events. Row 0, of padding, is zeros.
    """

    candidates: Tensor
    history: Tensor


class RankingBatch(NamedTuple):
    """What the cross-encoder reads of B lists with K candidates and L history events each.

    Events are led by a null token, at place 0, which has zeros for tokens, age and relations.

    signals: float32 [B, K, S]; the first is the stage-1 score. candidate_tokens: float32 [B, K, E],
    history_tokens: float32 [B, 1 + L, E], rows of ``ItemTokens``. history_mask: bool [B, 1 + L],
    True = real. history_age: float32 [B, 1 + L], seconds before the last event.
    candidate_relations: float32 [B, K, W], history_relations: float32 [B, 1 + L, W], vectors of the
    items. blocks: float32 [W, P]; ``(left * right) @ blocks`` is how two go together in P ways.
    """

    signals: Tensor
    candidate_tokens: Tensor
    history_tokens: Tensor
    history_mask: Tensor
    history_age: Tensor
    candidate_relations: Tensor
    history_relations: Tensor
    blocks: Tensor


class AttendedEvents(NamedTuple):
    """What candidates attend to, the null token first.

    tokens: [B, 1 + L, D]. text: [B, 1 + L, R]. relations: [B, 1 + L, W]. age: [B, 1 + L],
    standardised. mask: bool [B, 1 + L].
    """

    tokens: Tensor
    text: Tensor
    relations: Tensor
    age: Tensor
    mask: Tensor


class CrossAttention(nn.Module):
    """Multi-head attention of candidates to events and to a null token.

    The null token lets a candidate attend to nothing, also when the history is empty.

    Args:
        dim: of tokens. text_rank: of text vectors. num_relations: in how many ways candidates and
            events go together.
        products: whether the attended text, times the candidate's, is added to its token.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        text_rank: int,
        num_relations: int,
        *,
        products: bool,
    ) -> None:
        super().__init__()
        self.head_dim = dim // num_heads
        self.products = products
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.relation_weight = nn.Parameter(torch.zeros(num_relations, num_heads))
        # Older events count less, by a rate that is learned: softplus keeps it from below 0.
        self.age_rate = nn.Parameter(torch.zeros(num_heads))
        # Of the attended tokens, of how much of the history a candidate finds, which softmax alone
        # would hide, and of the products.
        self.out = nn.Linear(dim + num_heads * (1 + text_rank * products), dim)

    def forward(
        self,
        x: Tensor,
        asked: Tensor,
        text: Tensor,
        relations: Tensor,
        blocks: Tensor,
        events: AttendedEvents,
    ) -> Tensor:
        """What to add to candidates [B K, D].

        Args:
            x: [B K, D]. asked: [B, K, D], what the candidates' text adds to queries. text:
                [B, K, R]. relations: [B, K, W]. blocks: [W, P], see ``RankingBatch``, of a scale
                that brings relations to about unit variance.
        """
        nothing = events.age * 0.0
        is_event = torch.cat([nothing[:, :1], nothing[:, 1:] + 1.0], dim=1)
        # Of the null token the logit is 0, and so is what it answers.
        keys = self.key(events.tokens) * (is_event[:, :, None] / self.head_dim**0.5)
        values = self.value(events.tokens) * is_event[:, :, None]
        age = events.age * is_event
        weight = (blocks @ self.relation_weight).T  # [heads, W]
        # Head by head: a dimension for heads would have to be moved back and forth.
        heads = zip(
            torch.split(self.query(x).view(asked.shape) + asked, self.head_dim, dim=2),
            torch.split(keys, self.head_dim, dim=2),
            torch.split(values, self.head_dim, dim=2),
            weight.unbind(),
            (-F.softplus(self.age_rate)).unbind(),
            strict=True,
        )
        attended, found = [], []
        for query, key, value, own, rate in heads:
            by_event = (rate * age).masked_fill(~events.mask, _LITTLE)
            logits = query @ key.transpose(1, 2) + by_event[:, None]
            logits = logits + relations @ (events.relations * own).transpose(1, 2)
            weights = logits.softmax(dim=2)
            # The logarithm of the sum of exponentials, read off the null token.
            found.append(weights[..., :1].clamp(min=_TINY).log())
            attended.append(weights @ value)
            if self.products:
                found.append(text * (weights @ events.text))
        both = torch.cat([*attended, *found], dim=2)
        result: Tensor = self.out(both.flatten(end_dim=1))
        return result


class CrossEncoder(nn.Module):
    """Scores candidates against a history.

    Args:
        num_signals, num_relations, text_dim: widths of what it reads, see ``RankingBatch``.
        dim, num_heads, num_layers, dropout: of the transformer. text_rank: to how many dimensions
            it brings a text. products: see ``CrossAttention``. row_dropout: shares of the texts and
            of the events that are left out in training.
    """

    signal_mean: Tensor
    signal_scale: Tensor
    age_mean: Tensor
    age_scale: Tensor
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
    def fit_statistics(self, signals: Tensor, age: Tensor, related: Tensor, relative: int) -> None:
        """Set the scales of inputs.

        Args:
            signals: float32 [n, S], of real candidates; the first ``relative`` are on one scale
                already. age: float32 [m], of real events. related: float32 [o, P], dot products of
                real candidates' and events' relations.
        """
        self.signal_mean[relative:] = signals[:, relative:].mean(dim=0)
        self.signal_scale[relative:] = 1.0 / signals[:, relative:].std(dim=0).clamp(min=1e-3)
        ages = age.log1p()
        self.age_mean.copy_(ages.mean())
        self.age_scale.copy_(1.0 / ages.std().clamp(min=1e-3))
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
        told = self.history_norm(events[..., rank:] + self.history_age(age[:, :, None]))
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
