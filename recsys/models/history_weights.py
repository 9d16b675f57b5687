"""How much each event of a history counts in stage 1's query."""

import torch
from torch import Tensor


def recency_weights(mask: Tensor, half_life: float) -> Tensor:
    """2 ** (-n / half_life) where n events came after one, 0 at padding: float [B, L].

    Args:
        mask: bool [B, L] of left-aligned histories, oldest first. half_life: in events.
    """
    later = mask.sum(dim=1, keepdim=True) - 1 - torch.arange(mask.shape[1], device=mask.device)
    return torch.exp2(later.clamp(min=0) / -half_life) * mask


def event_counts(
    mask: Tensor, weights: Tensor | None, half_life: float | None, strength_exponent: float
) -> Tensor | None:
    """What events count by recency and by strength, 0 at padding: float [B, L]; None: each 1.

    Args:
        mask: bool [B, L], left-aligned, oldest first. weights: float [B, L], see ``HistoryBatch``;
            None: all alike. half_life: see ``recency_weights``; None: order does not count.
        strength_exponent: of the weights; with 0 they do not count.
    """
    by_recency = None if half_life is None else recency_weights(mask, half_life)
    if weights is None or strength_exponent == 0.0:
        return by_recency
    by_strength = weights**strength_exponent * mask
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
