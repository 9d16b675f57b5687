"""What a deployment, or one request, wants of lists besides relevance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from recsys.errors import InputError
from recsys.schema import ExternalId

CAPPED = ("genre", "year", "decade")
"""Attributes of which a list may be allowed only so many items of one value."""

Method = Literal["mmr", "dpp"]
"""Maximal marginal relevance, or a determinantal point process."""

_BOOSTS = ("genre", "item")


@dataclass(frozen=True)
class Rules:
    """Rules for one list; hashable.

    exclude_seen: items of the history are not returned. block: items that never are. allow: the
    only ones that may be; None for all. genres_any, genres_all, genres_none: an item has one of
    these genres, all, none of them. year_min, year_max: inclusive; an item of unknown year passes
    neither. caps: by attribute (see ``CAPPED``), how many items of one value a list may hold.
    pin: items that come first, in this order, where they pass all of the above. boost: by
    ``genre:NAME`` or ``item:ID``, what the odds of an item are multiplied by. diversity: from 0,
    by score alone, to 1, as unlike one another as can be. diversify: how, see ``arrange``.

    Raises:
        InputError: when a value is out of range.
    """

    exclude_seen: bool = True
    block: tuple[ExternalId, ...] = ()
    allow: tuple[ExternalId, ...] | None = None
    genres_any: tuple[str, ...] = ()
    genres_all: tuple[str, ...] = ()
    genres_none: tuple[str, ...] = ()
    year_min: int | None = None
    year_max: int | None = None
    caps: tuple[tuple[str, int], ...] = ()
    pin: tuple[ExternalId, ...] = ()
    boost: tuple[tuple[str, float], ...] = ()
    diversity: float = 0.0
    diversify: Method = "mmr"

    def __post_init__(self) -> None:
        for name, number in self.caps:
            if name not in CAPPED:
                _refuse(f"caps on {', '.join(CAPPED)}", name)
            if number < 1:
                _refuse(f"a cap of at least 1 for {name}", number)
        for key, factor in self.boost:
            kind, _, value = key.partition(":")
            if kind not in _BOOSTS or not value:
                _refuse("boosts of genre:NAME or item:ID", key)
            if not (math.isfinite(factor) and factor > 0):
                _refuse(f"a positive factor as boost of {key}", factor)
        if not 0 <= self.diversity <= 1:
            _refuse("diversity in 0..1", self.diversity)
        if self.diversify not in get_args(Method):
            _refuse("diversify to be mmr or dpp", self.diversify)

    @property
    def filters(self) -> bool:
        """Whether some items may not be returned to anybody."""
        lists = (self.block, self.genres_any, self.genres_all, self.genres_none)
        bounds = (self.allow, self.year_min, self.year_max)
        return any(lists) or any(bound is not None for bound in bounds)

    @property
    def arranges(self) -> bool:
        """Whether lists may have another order than that of the scores."""
        return bool(self.caps or self.pin or self.boost or self.diversity)

    def with_changes(self, changes: Mapping[str, Any]) -> "Rules":
        """The same with some rules replaced, such as a request's.

        Raises:
            InputError: for a rule that there is not, or a value that it cannot have.
        """
        return replace(self, **_checked(changes))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Rules":
        """From plain values: lists for tuples, mappings for pairs.

        Raises:
            InputError: as ``with_changes``.
        """
        return cls(**_checked(config))


PLAIN = Rules()


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(Rules)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise InputError(f"rules of {', '.join(sorted(names))}", unknown[0], "correct it")
    return {name: _hashable(value) for name, value in values.items()}


def _hashable(value: object) -> object:
    if isinstance(value, Mapping):
        return tuple((str(key), one) for key, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(value)
    return value


def _refuse(expected: str, found: object) -> None:
    raise InputError(f"rules with {expected}", repr(found)[:200], "correct it")
