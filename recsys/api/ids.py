"""Ids in requests: of the type of the vocabulary, so that a wrong one is refused, not unknown."""

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from fastapi import Path, Query

from recsys.errors import InputError
from recsys.schema import ExternalId

MAX_ID_LENGTH = 256
_INT64 = 2**63
_USER = "A user's id, as in training."
_ITEM = "An item's id: of the catalogue, or a new one."


def user_query(integers: bool) -> Callable[..., ExternalId]:
    """A dependency that reads ``user_id`` from the query."""
    own = Query(description=_USER, examples=[123 if integers else "u42"], **_bounds(integers))
    return _reader("user_id", Annotated[int if integers else str, own])


def user_path(integers: bool) -> Callable[..., ExternalId]:
    """A dependency that reads ``user_id`` from the path."""
    own = Path(description=_USER, examples=[123 if integers else "u42"], **_bounds(integers))
    return _reader("user_id", Annotated[int if integers else str, own])


def item_path(integers: bool) -> Callable[..., ExternalId]:
    """A dependency that reads ``item_id`` from the path."""
    own = Path(description=_ITEM, examples=[5001 if integers else "i42"], **_bounds(integers))
    return _reader("item_id", Annotated[int if integers else str, own])


def _bounds(integers: bool) -> dict[str, Any]:
    if integers:
        return {"ge": -_INT64, "lt": _INT64}
    return {"min_length": 1, "max_length": MAX_ID_LENGTH}


def _reader(name: str, kind: Any) -> Callable[..., ExternalId]:
    def read(**given: ExternalId) -> ExternalId:
        return given[name]

    parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
    # What FastAPI reads, since the type is known only once the vocabulary is.
    read.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    return read


def check_ids(kind: str, ids: Iterable[ExternalId], integers: bool) -> None:
    """Raise InputError when ids in a body are not of the vocabulary's type.

    Args:
        kind: user or item.
    """
    wanted, name = (int, "an integer") if integers else (str, "a string")
    for found in ids:
        told = repr(found)[:MAX_ID_LENGTH]
        if not isinstance(found, wanted):
            raise InputError(f"{name} for each {kind} id", told, "correct it")
        if isinstance(found, int) and not -_INT64 <= found < _INT64:
            raise InputError(f"{kind} ids of 64 bits", told, "correct it")
