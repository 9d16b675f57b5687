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


class ListInputs(NamedTuple):
    """What stage 2 reads of B lists of K candidates, and of their histories.

    candidates: int64 [B, K], in stage-1 order, 0 = none and last. tower_scores: float32 [B, K, H],
    stage-1 scores by tower; they add up to the stage-1 score. popularity: float32 [B, K, 6], of
    ``RecentPopularity``. taste: float32 [B, 3 r], the sum of the history's items' relations.
    popular_taste: float32 [B], the mean of their log(1 + events). length: float32 [B], events of
    the history. context: float32 [B, A], the user's attributes. recent: int64 [B, 1 + L], the place
    of the null token (0), then the latest events' items, 0 = none and last. age: float32
    [B, 1 + L], seconds before the last event. strength: float32 [B, 1 + L], the logarithms of the
    latest events' weights (see ``HistoryBatch``), 0 where all are alike and where there is none.
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
    strength: Tensor


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
    inputs: ListInputs,
    relations: Tensor,
    statistics: Tensor,
    blocks: Tensor,
    real: Tensor | None = None,
) -> Tensor:
    """Signals of each candidate, standardised within its list where only the order matters.

    Args:
        relations: float32 [B, K, 3 r], statistics: float32 [B, K, 4 + A], the candidates' rows of
            ``ItemRows``. blocks: float32 [3 r, 3], see ``Relations``. real: float32 [B, K, 1], 1
            for a candidate and 0 for an empty place; None where there are no empty places.

    Returns:
        float32 [B, K, S]; see ``signal_names``.
    """
    number = len(RELATIONS)
    log_count, alone = statistics[..., :1], statistics[..., 1 : 1 + number]
    affinity = statistics[..., 1 + number :]
    is_candidate = (inputs.candidates > 0)[..., None].float()
    is_best = is_candidate[:, :FEEDBACK_ITEMS]
    best = (relations[:, :FEEDBACK_ITEMS] * is_best).sum(dim=1)
    tastes = torch.cat([inputs.taste[..., None] * blocks, best[..., None] * blocks], dim=2)
    by_taste, likeness = (relations @ tastes).chunk(2, dim=2)
    relative = torch.cat(
        [
            inputs.tower_scores.sum(dim=2, keepdim=True),
            inputs.tower_scores,
            by_taste,
            _feedback(likeness, alone, is_best),
        ],
        dim=2,
    )
    length = inputs.length.clamp(min=1.0).log()[:, None, None]
    signals = torch.cat(
        [
            standardized(relative, real),
            is_candidate.cumsum(dim=1).clamp(min=1.0).log(),
            log_count,
            log_count - inputs.popular_taste[:, None, None],
            is_candidate * length,
            affinity @ inputs.context[..., None],
            inputs.popularity,
        ],
        dim=2,
    )
    return signals if real is None else signals * real


def _feedback(likeness: Tensor, alone: Tensor, is_best: Tensor) -> Tensor:
    """How candidates go with the list's best others, as if those were history: [B, K, 3].

    Pseudo-relevance feedback (Croft and Harper 1979): the best candidates of stage 1 are good
    enough on average to tell about the others.

    Args:
        likeness: [B, K, 3], to all of the best together. alone: [B, K, 3], to itself. is_best:
            [B, up to FEEDBACK_ITEMS, 1], 1 where the first candidates are real.
    """
    number = is_best.sum(dim=1, keepdim=True)
    first = slice(0, FEEDBACK_ITEMS)
    among = (likeness[:, first] - alone[:, first]) / (number - 1.0).clamp(min=1.0)
    others = likeness[:, FEEDBACK_ITEMS:] / number.clamp(min=1.0)
    return torch.cat([among, others], dim=1)


def standardized(values: Tensor, real: Tensor | None) -> Tensor:
    """Zero mean and unit variance over the candidates of a list.

    Args:
        values: float [B, K, S]. real: float [B, K, 1], as of ``list_signals``.
    """
    if real is None:
        mean = values.mean(dim=1, keepdim=True)
        centred = values - mean
        variance = centred.square().mean(dim=1, keepdim=True)
    else:
        count = real.sum(dim=1, keepdim=True).clamp(min=1.0)
        mean = (values * real).sum(dim=1, keepdim=True) / count
        centred = (values - mean) * real
        variance = centred.square().sum(dim=1, keepdim=True) / count
    # Where all are alike but for rounding, nothing is made of that.
    return centred / (variance.sqrt() + 1e-4 * mean.abs() + 1e-6)
