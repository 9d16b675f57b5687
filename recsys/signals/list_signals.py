"""What stage 2 knows of the candidates of a list besides their text: a few numbers each.

Plain tensor functions, from per-item tables and one vector per history: they run in training, and
as a part of the exported graph. Nothing in them crosses lists.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from recsys.signals.relations import RELATIONS

WINDOW_DAYS = (1, 7, 30)
FEEDBACK_ITEMS = 20
_IDENTITY = torch.eye(len(RELATIONS))


class ListInputs(NamedTuple):
    """What stage 2 reads of B lists of K candidates, and of their histories.

    candidates: int64 [B, K], in stage-1 order, 0 = none and last. tower_scores: float32 [B, K, H],
    stage-1 scores by tower; they add up to the stage-1 score. popularity: float32 [B, K, 6], of
    ``RecentPopularity``. taste: float32 [B, 3 r], the sum of the history's items' relations.
    popular_taste: float32 [B], the mean of their log(1 + events). length: float32 [B], events of
    the history. context: float32 [B, A], the user's attributes. recent: int64 [B, 1 + L], the place
    of the null token (0), then the latest events' items, 0 = none and last. age: float32
    [B, 1 + L], seconds before the last event.
    """

    candidates: Tensor
    tower_scores: Tensor
    popularity: Tensor
    taste: Tensor
    popular_taste: Tensor
    length: Tensor
    context: Tensor
    recent: Tensor
    age: Tensor


def signal_names(num_towers: int) -> list[str]:
    """Names of the signals, in the order of the last dimension of ``list_signals``."""
    return [
        "score",
        *[f"score_{i}" for i in range(num_towers)],
        *[f"{name}_sum" for name in RELATIONS],
        *[f"{name}_feedback" for name in RELATIONS],
        "log_rank",
        "log_popularity",
        "relative_popularity",
        "log_history_length",
        "context_affinity",
        *[f"popularity_{days}d" for days in WINDOW_DAYS],
        *[f"trend_{days}d" for days in WINDOW_DAYS],
    ]


def num_relative(num_towers: int) -> int:
    """How many of the signals, the first ones, are standardised within their list."""
    return 1 + num_towers + 2 * len(RELATIONS)


def list_signals(
    inputs: ListInputs, relations: Tensor, statistics: Tensor, signs: Tensor
) -> Tensor:
    """Signals of each candidate, standardised within its list where only the order matters.

    Args:
        relations: float32 [B, K, 3 r], statistics: float32 [B, K, 4 + A], the candidates' rows of
            ``ItemRows``. signs: float32 [3 r], see ``Relations``.

    Returns:
        float32 [B, K, S]; see ``signal_names``.
    """
    mask = inputs.candidates > 0
    number = len(RELATIONS)
    log_count, alone = statistics[..., 0], statistics[..., 1 : 1 + number]
    affinity = statistics[..., 1 + number :]
    is_best = mask[:, :FEEDBACK_ITEMS].float()
    best = (relations[:, :FEEDBACK_ITEMS] * is_best[..., None]).sum(dim=1)
    tastes = torch.stack([inputs.taste * signs, best * signs], dim=2)
    matches = relations @ _side_by_side(tastes)
    relative = torch.cat(
        [
            inputs.tower_scores.sum(dim=2, keepdim=True),
            inputs.tower_scores,
            matches[..., :number],
            _feedback(matches[..., number:], alone, is_best),
        ],
        dim=2,
    )
    nothing = log_count * 0.0
    length = inputs.length.clamp(min=1.0).log()[:, None]
    rank = mask.float().cumsum(dim=1).clamp(min=1.0).log()
    absolute = torch.stack(
        [
            rank,
            log_count,
            log_count - inputs.popular_taste[:, None],
            length + nothing,
            (affinity * inputs.context[:, None, :]).sum(dim=2),
        ],
        dim=2,
    )
    signals = torch.cat([standardized(relative, mask), absolute, inputs.popularity], dim=2)
    return signals * mask[:, :, None]


def _feedback(likeness: Tensor, alone: Tensor, is_best: Tensor) -> Tensor:
    """How candidates go with the list's best others, as if those were history: [B, K, 3].

    Pseudo-relevance feedback (Croft and Harper 1979): the best candidates of stage 1 are good
    enough on average to tell about the others.

    Args:
        likeness: [B, K, 3], to all of the best together. alone: [B, K, 3], to itself. is_best:
            [B, up to FEEDBACK_ITEMS], which of the first candidates are real.
    """
    number, first = is_best.sum(dim=1)[:, None, None], is_best.shape[1]
    among = (likeness[:, :first] - alone[:, :first]) / (number - 1.0).clamp(min=1.0)
    return torch.cat([among, likeness[:, first:] / number.clamp(min=1.0)], dim=1)


def _side_by_side(vectors: Tensor) -> Tensor:
    """Vectors [B, 3 r, n] -> [B, 3 r, n * 3], each block of r rows in a column of its own.

    A product with that is one with each block.
    """
    batch, width, number = vectors.shape
    blocks = vectors.view(batch, len(RELATIONS), -1, number, 1)
    apart = blocks * _IDENTITY.to(vectors.device)[:, None, None, :]
    return apart.view(batch, width, -1)


def standardized(values: Tensor, mask: Tensor) -> Tensor:
    """Zero mean and unit variance over the real candidates: float [B, K, S], bool [B, K]."""
    real = mask[:, :, None]
    count = real.sum(dim=1, keepdim=True).clamp(min=1)
    mean = (values * real).sum(dim=1, keepdim=True) / count
    centred = (values - mean) * real
    variance = centred.square().sum(dim=1, keepdim=True) / count
    # Where all are alike but for rounding, nothing is made of that.
    return centred / (variance.sqrt() + 1e-4 * mean.abs() + 1e-6)
