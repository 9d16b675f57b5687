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

    Events are led by a null token, at place 0, which has zeros for tokens, age and pairs.

    signals: float32 [B, K, S]; the first is the stage-1 score. candidate_tokens: float32 [B, K, E],
    history_tokens: float32 [B, 1 + L, E], rows of ``ItemTokens``. history_mask: bool [B, 1 + L],
    True = real. history_age: float32 [B, 1 + L], seconds before the last event. pairs: float32
    [B, P, K, 1 + L], how candidates and events go together.
    """

    signals: Tensor
    candidate_tokens: Tensor
    history_tokens: Tensor
    history_mask: Tensor
    history_age: Tensor
    candidate_relations: Tensor
    history_relations: Tensor


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
        dropout: float,
        *,
        products: bool,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.null = nn.Parameter(torch.zeros(dim))
        self.relation_weight = nn.Parameter(torch.zeros(num_heads, num_relations))
        # Older events count less, by a rate that is learned: softplus keeps it from below 0.
        self.age_rate = nn.Parameter(torch.zeros(num_heads))
        self.out = nn.Linear(dim, dim)
        # How much of the history a candidate finds: softmax alone would hide it.
        self.found = nn.Linear(num_heads, dim)
        self.product = nn.Linear(num_heads * text_rank, dim) if products else None
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        asked: Tensor,
        events: Tensor,
        mask: Tensor,
        age: Tensor,
        candidate_relations: Tensor,
        event_relations: Tensor,
        candidate_text: Tensor,
        event_text: Tensor,
    ) -> Tensor:
        """What to add to candidates [B * K, D].

        Args:
            x: [B * K, D]. asked: [B * K, D], what the candidates' text adds to queries. events:
                [B, 1 + L, D]. mask: bool [B, 1 + L]. age: [B, 1 + L], standardised.
            candidate_relations: [B, K, P r]. event_relations: [B, 1 + L, P, r], whose products with
                those are on about one scale. candidate_text: [B, K, R]. event_text: [B, 1 + L, R].
        """
        batch, number = candidate_relations.shape[:2]
        memory = torch.cat([events[:, :1] * 0.0 + self.null, events[:, 1:]], dim=1)
        key, value = self.key_value(memory).chunk(2, dim=2)
        query = (self.query(self.norm(x)) + asked).view(batch, number, -1)
        key = self._heads(key).transpose(2, 3) / (query.shape[2] // self.num_heads) ** 0.5
        weighted = event_relations[:, None] * self.relation_weight[:, None, :, None]
        related = candidate_relations[:, None] @ weighted.flatten(start_dim=3).transpose(2, 3)
        rate = F.softplus(self.age_rate)[None, :, None, None]
        by_event = (-rate * age[:, None, None]).masked_fill(~mask[:, None, None], _LITTLE)
        logits = self._heads(query) @ key + related + by_event
        weights = logits.softmax(dim=3)
        # The logarithm of the sum over the logits' exponentials, read off the null token.
        found = logits[..., 0] - (weights[..., 0] + _TINY).log()
        weights = self.dropout(weights)
        attended = (weights @ self._heads(value)).transpose(1, 2).reshape(x.shape)
        out = self.out(attended) + self.found(found.transpose(1, 2).reshape(-1, self.num_heads))
        if self.product is not None:
            text = (weights @ event_text[:, None]).transpose(1, 2)  # [B, K, heads, R]
            products = candidate_text[:, :, None] * text
            out = out + self.product(products.flatten(start_dim=2).flatten(end_dim=1))
        result: Tensor = self.dropout(out)
        return result

    def _heads(self, x: Tensor) -> Tensor:
        """[B, n, D] -> [B, heads, n, D / heads]"""
        return x.view(x.shape[0], x.shape[1], self.num_heads, -1).transpose(1, 2)


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
        dropout: float = 0.3,
        row_dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.dim = dim
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
        self.signals = nn.Sequential(nn.Linear(num_signals, dim), nn.GELU(), nn.Linear(dim, dim))
        self.dropout = nn.Dropout(dropout)
        self.attention = nn.ModuleList(
            CrossAttention(dim, num_heads, text_rank, num_relations, dropout, products=products)
            for _ in range(num_layers)
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
        # The score is stage 1's at the start: the network can only learn to improve on it.
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(1, num_signals))
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
        # In two dimensions, since ONNX's Gemm adds biases on the way, which its MatMul does not.
        signals = ((batch.signals - self.signal_mean) * self.signal_scale).flatten(end_dim=1)
        age = (batch.history_age.log1p() - self.age_mean) * self.age_scale
        mask = batch.history_mask
        blocks = (*mask.shape, self.relation_scale.shape[0], -1)
        relations = batch.history_relations.view(blocks) * self.relation_scale[:, None]
        candidates, events = batch.candidate_tokens, batch.history_tokens
        if self.training:
            candidates, events = self._without_some(candidates), self._without_some(events)
            kept = torch.rand(mask.shape, device=mask.device) >= self.row_dropout
            kept[:, 0] = True
            mask = mask & kept
        rank = self.text_rank
        candidate_text, asked = candidates[..., :rank], candidates[..., rank:]
        event_text, told = events[..., :rank], events[..., rank:]
        x = self.dropout(self.signals(signals))
        tokens = self.history_norm(told + self.history_age(age[:, :, None]))
        for attention, feed_forward in self.layers:
            x = x + attention(
                x,
                asked.flatten(end_dim=1),
                tokens,
                mask,
                age,
                batch.candidate_relations,
                relations,
                candidate_text,
                event_text,
            )
            x = feed_forward(x)
        scores: Tensor = (self.linear(signals) + self.head(x)).view(batch.signals.shape[:2])
        return scores

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
