"""How candidates attend to the events of a history: by text, by relation and by age."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LITTLE, _TINY = -1e9, 1e-12
"""A logit next to which nothing else counts, and a weight that is next to none; both finite."""


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
