"""From one vector per token to one vector per text."""

from collections.abc import Callable

import torch
from torch import Tensor

Pooling = Callable[[Tensor, Tensor], Tensor]


def mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The average over real tokens: [B, L, D], bool [B, L] -> [B, D]."""
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def cls(hidden: Tensor, mask: Tensor) -> Tensor:
    """The first real token, wherever the padding is: [B, L, D], bool [B, L] -> [B, D]."""
    return _take(hidden, mask.int().argmax(dim=1))


def last_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """The last real token, wherever the padding is: [B, L, D], bool [B, L] -> [B, D].

    The pooling of embedding models made from decoders, whose last token alone has seen them all.
    """
    positions = torch.arange(mask.shape[1], device=mask.device)
    return _take(hidden, (positions * mask).argmax(dim=1))


def _take(hidden: Tensor, position: Tensor) -> Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), position]


POOLINGS: dict[str, Pooling] = {"mean": mean, "cls": cls, "last_token": last_token}
