"""Places in lists for new items, of which nobody can know yet whether they are liked.

Epsilon-greedy (Sutton and Barto 2018, 2.4) at the last places of a list: each of these is given,
with probability epsilon and independently of the others, to an item drawn from the new ones, all
alike likely and none twice. How likely each item was to be where it is, its propensity, is known,
so that what follows can be weighed by its inverse (Horvitz and Thompson 1952).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import InputError


@dataclass(frozen=True)
class Explored:
    """A list after exploration.

    items: of the list, in order. propensities: of each, the probability that it is at its place.
    is_new: whether each was put there by exploration.
    """

    items: list[int]
    propensities: list[float]
    is_new: list[bool]


@dataclass(frozen=True)
class Exploration:
    """The policy.

    epsilon: of each place. slots: places, the last of a list.

    Raises:
        InputError: when a number is out of range.
    """

    epsilon: float
    slots: int

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < 1:
            raise InputError("exploration.epsilon in 0..1", str(self.epsilon), "set it to 0.05")
        if self.slots < 1:
            raise InputError("exploration.slots of at least 1", str(self.slots), "set it to 1")

    def draw(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Which places are given away: bool [slots]."""
        return rng.random(self.slots) < self.epsilon

    def explored(
        self,
        items: Sequence[int],
        new: Sequence[int],
        drawn: NDArray[np.bool_],
        rng: np.random.Generator,
        num_fixed: int = 0,
    ) -> Explored:
        """A list with new items at the places that were drawn.

        Where there are fewer new items than places, or the list is shorter, so many of the last
        places are the ones that count.

        Args:
            items: best first. new: those that may be put in; ones that are in the list already are
                passed over. drawn: from ``draw``. num_fixed: how many of the first places are not
                to be given away.
        """
        pool = [item for item in new if item not in set(items)]
        slots = min(self.slots, len(pool), max(len(items) - num_fixed, 0))
        kept = len(items) - slots
        found = list(items)
        is_new = [False] * len(items)
        propensities = [1.0] * kept + [1 - self.epsilon] * slots
        chosen = rng.permutation(len(pool))[:slots]
        for slot in range(slots):
            if drawn[len(drawn) - slots + slot]:
                found[kept + slot] = pool[chosen[slot]]
                is_new[kept + slot] = True
                propensities[kept + slot] = self.epsilon / len(pool)
        return Explored(found, propensities, is_new)
