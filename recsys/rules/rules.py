"""What a deployment, or one request, wants of lists besides relevance."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, get_args

from recsys.errors import InputError
from recsys.rules import checks
from recsys.schema import ExternalId

CAPPED = ("genre", "year", "decade")
"""Attributes of which a list may be allowed only so many items of one value."""

Method = Literal["mmr", "dpp"]
"""Maximal marginal relevance, or a determinantal point process."""


@dataclass(frozen=True)
class Rules:
    """Rules for one list; hashable. Lists and mappings are taken as well, and become tuples.

    exclude_seen: items of the history are not returned. exclude_types: only those of them are left
    out that the user had by an event of one of these types, or by one whose type is not known, such
    as those of a history in a request; None: whatever the type. block: items that never are. allow:
    the only ones that may be; None for all. genres_any, genres_all, genres_none: an item has one of
    these genres, all, none of them. year_min, year_max: inclusive; an item of unknown year passes
    neither. caps: by attribute (see ``CAPPED``), how many items of one value a list may hold. pin:
    items that come first, in this order, where they pass all of the above. boost: by ``genre:NAME``
    or ``item:ID``, what the odds of an item are multiplied by. diversity: from 0, by score alone,
    to 1, as unlike one another as can be. diversify: how, see ``arrange``.

    Raises:
        InputError: when a value is out of range.
    """

    exclude_seen: bool = True
    exclude_types: tuple[str, ...] | None = None
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
    _hash: ClassVar[int]

    def __post_init__(self) -> None:
        checked: dict[str, object] = {
            "exclude_seen": checks.flag("exclude_seen", self.exclude_seen),
            "caps": checks.caps("caps", self.caps, CAPPED),
            "boost": checks.boosts("boost", self.boost),
            "diversity": checks.share("diversity", self.diversity),
            "diversify": checks.one_of("diversify", self.diversify, get_args(Method)),
        }
        for name in ("block", "pin"):
            checked[name] = checks.external_ids(name, getattr(self, name))
        if self.allow is not None:
            checked["allow"] = checks.external_ids("allow", self.allow)
        if self.exclude_types is not None:
            checked["exclude_types"] = checks.names("exclude_types", self.exclude_types, "purchase")
        for name in ("genres_any", "genres_all", "genres_none"):
            checked[name] = checks.names(name, getattr(self, name))
        for name in ("year_min", "year_max"):
            checked[name] = checks.year(name, getattr(self, name))
        first, last = self.year_min, self.year_max
        if first is not None and last is not None and first > last:
            raise InputError("year_min not above year_max", f"{first} and {last}", "swap them")
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        # Kept, since caches look rules up for each list, and they may name thousands of items.
        values = tuple(getattr(self, field.name) for field in fields(self))
        object.__setattr__(self, "_hash", hash(values))

    def __hash__(self) -> int:
        """Equal rules have equal ones."""
        return self._hash

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

    @property
    def takes_long(self) -> bool:
        """Whether making a list takes much longer than for others: beyond a few items it may."""
        return bool(self.caps or self.diversity)

    def with_changes(self, changes: Mapping[str, Any]) -> "Rules":
        """The same with some rules replaced, such as a request's.

        What ``block`` and ``genres_none`` leave out stays left out: a request may add to them.

        Raises:
            InputError: for a rule that there is not, or a value that it cannot have.
        """
        changed = replace(self, **_known(changes))
        return replace(
            changed,
            block=tuple(dict.fromkeys((*self.block, *changed.block))),
            genres_none=tuple(dict.fromkeys((*self.genres_none, *changed.genres_none))),
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Rules":
        """From plain values: lists for tuples, mappings for pairs.

        Raises:
            InputError: as ``with_changes``.
        """
        return cls(**_known(config))


PLAIN = Rules()


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(Rules)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise InputError(f"rules of {', '.join(sorted(names))}", unknown[0], "correct it")
    return dict(values)
