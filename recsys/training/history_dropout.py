"""Which events of a history a query sees in training, and which are left to predict."""

from typing import NamedTuple

import torch
from torch import Tensor

from recsys.models.history_weights import history_weights

MAX_FIRST = 20
"""The longest history that stands for a new user's."""


class Shown(NamedTuple):
    """What a query is made of. visible: bool [B, L]. weights: float [B, L], 0 where hidden."""

    visible: Tensor
    weights: Tensor


def some_events(mask: Tensor, dropout: float, length_exponent: float) -> Shown:
    """Hide each event with probability ``dropout``; weights make up for it on average.

    Args:
        mask: bool [B, L], True = real. length_exponent: see ``history_weights``.
    """
    visible = mask & (torch.rand(mask.shape, device=mask.device) >= dropout)
    return Shown(visible, history_weights(mask, length_exponent) * visible / (1.0 - dropout))


def first_events(mask: Tensor, length_exponent: float) -> Shown:
    """Show 0 to ``MAX_FIRST`` events, short histories as likely as long ones on a log scale.

    They are a history's oldest events for half of the rows, as of a user who has just arrived, and
    random ones for the others. Weights are those of a history without the rest, as when serving.
    """
    device = mask.device
    rows = len(mask), 1
    # 1 <= exp(u log(m + 2)) < m + 2
    length = torch.exp(torch.rand(rows, device=device) * torch.tensor(MAX_FIRST + 2.0).log())
    oldest = torch.arange(mask.shape[1], device=device).expand_as(mask)
    shuffled = torch.rand(mask.shape, device=device).masked_fill(~mask, 2.0).argsort(1).argsort(1)
    place = torch.where(torch.rand(rows, device=device) < 0.5, oldest, shuffled)
    visible = mask & (place < length.floor() - 1)
    return Shown(visible, history_weights(visible, length_exponent))
