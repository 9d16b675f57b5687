"""How much each event of a history counts in stage 1's query."""

from typing import NamedTuple

import torch
from torch import Tensor


class EventCounting(NamedTuple):
    """What an event counts in a query.

    half_life: in events, see ``recency_weights``; None: order does not count. strength_exponent: of
    an event's weight; with 0 weights do not count.
    """

    half_life: float | None = None
    strength_exponent: float = 0.0

    def __str__(self) -> str:
        by_order = "no half-life" if self.half_life is None else f"half-life {self.half_life:g}"
        return f"{by_order}, strength exponent {self.strength_exponent:g}"


ALL_ALIKE = EventCounting()


def recency_weights(mask: Tensor, half_life: float) -> Tensor:
    """2 ** (-n / half_life) where n events came after one, 0 at padding: float [B, L].

    Args:
        mask: bool [B, L] of left-aligned histories, oldest first. half_life: in events.
    """
    later = mask.sum(dim=1, keepdim=True) - 1 - torch.arange(mask.shape[1], device=mask.device)
    return torch.exp2(later.clamp(min=0) / -half_life) * mask


def event_counts(mask: Tensor, weights: Tensor | None, counting: EventCounting) -> Tensor | None:
    """What events count by recency and by strength, 0 at padding: float [B, L]; None: each 1.

    Args:
        mask: bool [B, L], left-aligned, oldest first. weights: float [B, L], see ``HistoryBatch``;
            None: all alike.
    """
    half_life, exponent = counting
    by_recency = None if half_life is None else recency_weights(mask, half_life)
    if weights is None or exponent == 0.0:
        return by_recency
    by_strength = weights**exponent * mask
    return by_strength if by_recency is None else by_recency * by_strength


def history_weights(mask: Tensor, length_exponent: float, counts: Tensor | None = None) -> Tensor:
    """length ** -exponent at real events, 0 at padding: bool [B, L] -> float [B, L].

    An exponent of 0.5 keeps a long history louder than a short one, but not in proportion.

    Args:
        counts: float [B, L], of ``event_counts``, times which events weigh; a length is then their
            sum. None: each event counts 1.
    """
    weights = mask if counts is None else counts
    length = weights.sum(dim=1, keepdim=True).clamp(min=1)
    return weights / length**length_exponent
