"""Lists of users whom training has not seen: popularity until their history says more.

A newcomer's first events are mostly what every newcomer is shown, and tell little of a taste. How
much a history tells is read off its items: those with which histories typically open tell less. A
logistic gate turns this, and the number of events, into the share that popularity has in the
scores. Its numbers are fitted on validation users, see ``recsys.training.new_users``.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.histories import Histories

_MAX_OPENING = 20
"""Events: the opening of a history is its first third, and no more than these."""
_PRIOR_EVENTS = 5.0
"""Of the average item, added to each item's own."""


@dataclass(frozen=True)
class NewUserGate:
    """The share of popularity: sigmoid(bias + slope * opening - fading * log(number of events)).

    opening is the mean ``opening_lift`` of the history's items.
    """

    bias: float
    slope: float
    fading: float

    def shares(self, opening: Tensor, number: Tensor) -> Tensor:
        """In 0..1, of histories with such openings float [R] and numbers of events [R]."""
        return torch.sigmoid(
            self.bias + self.slope * opening - self.fading * number.clamp(min=1).log()
        )


@dataclass(frozen=True)
class NewUserSettings:
    """What is fitted for users whom training has not seen, as the manifest keeps it.

    gate: None where a history, however short, is best left to stage 1. half_life_days: of an event
    in popularity; None counts all events alike.
    """

    gate: NewUserGate | None
    half_life_days: float | None

    def to_manifest(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_manifest(cls, content: Mapping[str, Any]) -> "NewUserSettings":
        """From what ``to_manifest`` gave.

        Raises:
            TypeError, ValueError, KeyError: when it is something else.
        """
        half_life, gate = content["half_life_days"], content["gate"]
        return cls(
            None if gate is None else NewUserGate(**{k: float(v) for k, v in gate.items()}),
            None if half_life is None else float(half_life),
        )


def opening_lift(histories: Histories, num_items: int) -> NDArray[np.float32]:
    """How much more of an item's events than of all are in the opening: float32 [num_items + 1].

    The logarithm of the ratio of the two shares, drawn towards 0 for items with few events; 0 for
    those without.
    """
    user_idx = histories.user_idx
    places = np.arange(len(histories)) - histories.offsets[user_idx]
    is_opening = places < np.minimum(histories.lengths[user_idx] / 3, _MAX_OPENING)
    average = is_opening.mean() if len(histories) else 1.0
    openings = np.bincount(histories.item_idx[is_opening], minlength=num_items + 1)
    counts = histories.item_counts(num_items)
    share = (openings + _PRIOR_EVENTS * average) / (counts + _PRIOR_EVENTS)
    lift: NDArray[np.float32] = np.log(share / average).astype(np.float32)
    return lift


def blended(
    scores: Tensor, popularity: Tensor, mean: Tensor, deviation: Tensor, share: Tensor
) -> Tensor:
    """Scores of both, in units of stage 1's: float [..., K].

    Args:
        scores: of stage 1, [..., K]. popularity: in deviations from the average item, [..., K].
        mean, deviation: of stage 1's scores over the catalogue, and share: of popularity, [..., 1].
    """
    return (1.0 - share) * scores + share * (mean + deviation * popularity)


class NewUserBlend:
    """Blends stage 1's scores with popularity.

    Args:
        gate: fitted to the model. lift: float32 [N + 1], as of ``opening_lift``. embeddings:
            float [N + 1, D], of the candidates; row 0 is padding.
    """

    def __init__(self, gate: NewUserGate, lift: NDArray[np.float32], embeddings: Tensor) -> None:
        self.gate = gate
        self.lift = torch.from_numpy(lift)
        vectors = embeddings[1:].float().cpu()
        # Scores over the whole catalogue have the moments q.mean and q'Cov q.
        self._mean, self._covariance = vectors.mean(dim=0), vectors.T.cov()

    def share(self, item_idx: Tensor) -> float:
        """Of popularity in the list for a history of items int64 [n]; 0 where n is 0."""
        if not len(item_idx):
            return 0.0
        # Of items that came later nothing is known.
        known = item_idx.where(item_idx < len(self.lift), 0)
        number = torch.tensor(len(item_idx))
        return float(self.gate.shares(self.lift[known].mean(), number))

    def scores(self, query: Tensor, scores: Tensor, popularity: Tensor, share: float) -> Tensor:
        """Blended scores float [K] for a query float [D]; see ``blended``."""
        deviation = (query @ self._covariance @ query).clamp(min=0).sqrt()
        return blended(scores, popularity, query @ self._mean, deviation, torch.tensor(share))
