"""The values of rules, as they come from a config or a request, checked and made immutable."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recsys.errors import InputError
from recsys.schema import ExternalId

_LARGEST_FACTOR = 1e6


def flag(name: str, value: object) -> bool:
    """True or False."""
    if isinstance(value, bool):
        return value
    raise InputError(f"{name} to be true or false", repr(value), f"e.g. {name}=true")


def external_ids(name: str, value: object) -> tuple[ExternalId, ...]:
    """Item ids, integers or strings, in order."""
    ids = _sequence(name, value, "e.g. [50, 181]")
    for one in ids:
        if isinstance(one, bool) or not isinstance(one, (int, str)):
            remedy = "give ids as in the catalogue, e.g. [50, 181]"
            raise InputError(f"{name} to hold item ids", repr(one), remedy)
    return tuple(ids)


def names(name: str, value: object, example: str = "Drama") -> tuple[str, ...]:
    """Names, such as genres', none of them empty."""
    remedy = f'e.g. ["{example}"]'
    found = _sequence(name, value, remedy)
    for one in found:
        if not isinstance(one, str) or not one:
            raise InputError(f"{name} to hold names", repr(one), remedy)
    return tuple(found)


def year(name: str, value: object) -> int | None:
    """A year, or None for no bound."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise InputError(f"{name} to be a whole number or null", repr(value), f"e.g. {name}=1990")


def share(name: str, value: Any) -> float:
    """A number between 0 and 1."""
    if _is_number(value) and 0 <= value <= 1:
        return float(value)
    raise InputError(f"{name} between 0 and 1", repr(value), f"e.g. {name}=0.3")


def one_of(name: str, value: object, choices: Sequence[str]) -> str:
    """One of some names."""
    if isinstance(value, str) and value in choices:
        return value
    raise InputError(f"{name} to be {' or '.join(choices)}", repr(value), f"e.g. {choices[0]}")


def caps(name: str, value: object, attributes: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """(attribute, number) pairs, also from a mapping; each attribute once, numbers from 1."""
    example = f'e.g. {{"{attributes[0]}": 2}}'
    pairs = _pairs(name, value, example)
    for attribute, number in pairs:
        one_of(f"attributes of {name}", attribute, attributes)
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(f"{name} of at least 1", f"{attribute}: {number!r}", example)
    return pairs


def boosts(name: str, value: object) -> tuple[tuple[str, float], ...]:
    """(``genre:NAME`` or ``item:ID``, factor) pairs, also from a mapping; factors above 0."""
    example = 'e.g. {"genre:Drama": 1.5, "item:50": 2}'
    pairs = _pairs(name, value, example)
    for key, factor in pairs:
        kind, _, target = key.partition(":") if isinstance(key, str) else ("", "", "")
        if kind not in ("genre", "item") or not target:
            raise InputError(f"{name} by genre:NAME or item:ID", repr(key), example)
        if not (_is_number(factor) and 0 < factor <= _LARGEST_FACTOR):
            raise InputError(
                f"{name} factors above 0, up to {_LARGEST_FACTOR:g}", f"{key}: {factor!r}", example
            )
    return tuple((key, float(factor)) for key, factor in pairs)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _sequence(name: str, value: object, example: str) -> list[Any]:
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return list(value)
    raise InputError(f"{name} to be a list", repr(value), example)


def _pairs(name: str, value: object, example: str) -> tuple[tuple[Any, Any], ...]:
    entries: Iterable[Any]
    entries = value.items() if isinstance(value, Mapping) else _sequence(name, value, example)
    pairs = []
    for entry in entries:
        if not isinstance(entry, Sequence) or isinstance(entry, str) or len(entry) != 2:
            raise InputError(f"{name} to hold pairs", repr(entry), example)
        pairs.append((entry[0], entry[1]))
    keys = [repr(key) for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise InputError(f"{name} to name each key once", ", ".join(keys), "leave one of them out")
    return tuple(pairs)
