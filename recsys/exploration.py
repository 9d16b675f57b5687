"""Places in lists for new items, of which nobody can know yet whether they are liked.

Two policies. Long lists have reserved places, which the best of the new items get: their scores are
not comparable with those of items that have events, but among themselves they are ranked well.

Short lists are explored epsilon-greedily (Sutton and Barto 2018, 2.4) at their last places: each of
these is given, with probability epsilon and independently of the others, to an item drawn from the
new ones, all alike likely and none twice. How likely each item was to be where it is, its
propensity, is known, so that what follows can be weighed by its inverse (Horvitz and Thompson
1952).
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import InputError

MIN_LENGTH = 20
"""Of lists that have reserved places."""

Fits = Callable[[Sequence[int], Sequence[int]], Sequence[int]]
"""(items of a list, pool) -> those of the pool that the list may hold one more of, in order."""


def _all_fit(items: Sequence[int], pool: Sequence[int]) -> Sequence[int]:  # noqa: ARG001
    return pool


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


@dataclass(frozen=True)
class ReservedPlaces:
    """Places that the best of the new items get.

    places: counted from 1, in any order; none for no such places.

    Raises:
        InputError: when they are no different places of a list.
    """

    places: Sequence[int]

    def __post_init__(self) -> None:
        places: object = self.places
        if not _are_places(places):
            raise InputError(
                "exploration.places, different places of a list, counted from 1",
                str(places),
                "set exploration.places=[11,14,17], or [] for none",
            )
        object.__setattr__(self, "places", tuple(sorted(self.places)))

    def filled(
        self,
        items: Sequence[int],
        best: Sequence[int],
        new: Container[int],
        num_fixed: int = 0,
        fits: Fits = _all_fit,
    ) -> Explored:
        """A list with new items at the reserved places, if it has ``MIN_LENGTH`` items.

        What was there moves down, and the last item that is not new leaves the list. A place that
        no item is left for stays as it is.

        Args:
            items: best first. best: new ones that may be put in, best first; those of the list are
                passed over. new: all new ones. num_fixed: how many of the first places are not to
                be given away. fits: asked for each place.
        """
        found, is_new, listed = list(items), [False] * len(items), set(items)
        pool = [item for item in best if item not in listed]
        places = self.places if len(found) >= MIN_LENGTH else ()
        for place in places:
            at = place - 1
            old = [row for row in range(at, len(found)) if found[row] not in new]
            if at < num_fixed or not old:
                continue
            others = [*found[: old[-1]], *found[old[-1] + 1 :]]
            fitting = fits(others, pool)
            if len(fitting):
                found = [*others[:at], fitting[0], *others[at:]]
                is_new[at] = True
                pool.remove(fitting[0])
        return Explored(found, [1.0] * len(found), is_new)


def _are_places(places: object) -> bool:
    if not isinstance(places, Sequence) or isinstance(places, str):
        return False
    are_numbers = all(type(place) is int and place >= 1 for place in places)
    return are_numbers and len(set(places)) == len(places)
