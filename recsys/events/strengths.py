"""What events that have come in count: as their types do in training."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.events.types import TOLD_TYPES

UNTOLD = 1.0
"""What an event counts of whose type nothing is said, as a row of an interactions file does."""


def strengths_of(
    types: Sequence[int], event_weights: Mapping[str, float] | None
) -> NDArray[np.float64]:
    """How much events of these sets of types [n] count: as their strongest type, float64 [n].

    Args:
        types: numbers of ``recsys.events.types.type_set``; of an empty set nothing is known.
        event_weights: what training said of types, see ``recsys.data.strengths``.
    """
    if not event_weights:
        return np.full(len(types), UNTOLD)
    sets = np.asarray(types, np.int64)
    by_type = np.array([event_weights.get(name, UNTOLD) for name in TOLD_TYPES])
    has_type = (sets[:, None] >> np.arange(len(TOLD_TYPES))) & 1
    return np.where(sets == 0, UNTOLD, (has_type * by_type).max(axis=1))
