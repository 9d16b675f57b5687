"""The ids in rules and requests: of the type of those of training."""

from collections.abc import Iterable, Mapping
from typing import Any

from recsys.core.ids import INT64_END, integer_id
from recsys.errors import InputError
from recsys.rules.rules import Rules
from recsys.schema import ExternalId

MAX_ID_LENGTH = 256


def checked_rules(config: Mapping[str, Any], integers: bool) -> Rules:
    """From plain values; see ``Rules.from_config``.

    Args:
        integers: whether the catalogue's ids are integers.

    Raises:
        InputError: as there, and for ids of items of another type than the catalogue's.
    """
    rules = Rules.from_config(config)
    check_ids("item", [*rules.block, *(rules.allow or ()), *rules.pin], integers)
    check_boosted((key for key, _ in rules.boost), integers)
    return rules


def check_boosted(boosts: Iterable[str], integers: bool) -> None:
    """Raise InputError when ``item:ID`` names no id of the vocabulary's type; see ``Rules``."""
    for boost in boosts:
        kind, _, text = boost.partition(":")
        if kind == "item" and integers and integer_id(text) is None:
            told = repr(boost)[:MAX_ID_LENGTH]
            raise InputError("an integer id in boost item:ID", told, "correct it")


def check_ids(kind: str, ids: Iterable[ExternalId], integers: bool) -> None:
    """Raise InputError when ids in a body are not of the vocabulary's type.

    Args:
        kind: user or item.
    """
    wanted, name = (int, "an integer") if integers else (str, "a string")
    for found in ids:
        told = repr(found)[:MAX_ID_LENGTH]
        if not isinstance(found, wanted) or isinstance(found, bool):
            raise InputError(f"{name} for each {kind} id", told, "correct it")
        if isinstance(found, int) and not -INT64_END <= found < INT64_END:
            raise InputError(f"{kind} ids of 64 bits", told, "correct it")
