"""Ids and numbers in requests: strictly of the vocabulary's type, so that none is misread."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from annotated_types import Interval
from fastapi import Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, Strict, StringConstraints
from pydantic_core import PydanticCustomError
from starlette.convertors import StringConvertor, register_url_convertor

from recsys.core.ids import INT64_END, integer_of
from recsys.rules.ids import MAX_ID_LENGTH
from recsys.schema import ExternalId


class _IdConvertor(StringConvertor):
    """All the rest of a path, slashes and line breaks included: ``{user_id:id}``."""

    regex = "(?s:.*)"


register_url_convertor("id", _IdConvertor())

_USER = "A user's id, as in training."
_ITEM = "An item's id: of the catalogue, or a new one."


def _strict(value: object) -> object:
    if isinstance(value, str):
        found = integer_of(value)
        if found is None:
            raise PydanticCustomError(
                "int_parsing", "Input should be a valid integer, written as 0, 7 or -7"
            )
        return found
    return value


STRICT = BeforeValidator(_strict)
"""Of an integer in a path or query, after its bounds: "1_0", "+1", " 1" and "01" are none."""

BodyId = (
    Annotated[int, Strict()]
    | Annotated[str, Strict(), StringConstraints(min_length=1, max_length=MAX_ID_LENGTH)]
)
"""An id in JSON; ``true`` and ``1.0`` are none."""


def user_query(integers: bool, *, optional: bool = False) -> Callable[..., Any]:
    """A dependency that reads ``user_id`` from the query; None where it may be left out."""
    return _in_query("user_id", integers, optional, description=_USER, examples=_USERS[integers])


def item_query(integers: bool, *, optional: bool = False) -> Callable[..., Any]:
    """A dependency that reads ``item_id`` from the query; None where it may be left out."""
    return _in_query("item_id", integers, optional, description=_ITEM, examples=_ITEMS[integers])


def user_path(integers: bool) -> Callable[..., ExternalId]:
    """A dependency that reads ``user_id`` from the end of the path."""
    return _in_path("user_id", integers, description=_USER, examples=_USERS[integers])


def item_path(integers: bool) -> Callable[..., ExternalId]:
    """A dependency that reads ``item_id`` from the end of the path."""
    return _in_path("item_id", integers, description=_ITEM, examples=_ITEMS[integers])


_USERS: dict[bool, list[ExternalId]] = {True: [123], False: ["u42"]}
_ITEMS: dict[bool, list[ExternalId]] = {True: [5001], False: ["i42"]}


def _kind(integers: bool) -> Any:
    if integers:
        return Annotated[int, Interval(ge=-INT64_END, lt=INT64_END), STRICT]
    return Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_LENGTH)]


def _in_query(name: str, integers: bool, optional: bool, **said: Any) -> Callable[..., Any]:
    kind: Any = Annotated[_kind(integers), Query(**said)]
    default = {"default": None} if optional else {}

    async def read(**given: ExternalId | None) -> ExternalId | None:
        return given[name]

    return _signed(read, _parameter(name, kind | None if optional else kind, **default))


def _in_path(name: str, integers: bool, **said: Any) -> Callable[..., ExternalId]:
    kind: Any = Annotated[_kind(integers), Path(**said)]

    async def read(request: Request, **given: ExternalId) -> ExternalId:
        raw: bytes = request.scope["raw_path"]
        check_encoded(raw, "path")
        if raw.count(b"/") > 2:  # /users/10/ is not the user "10/"
            raise _badly_encoded("path", f"{name} should have %2F for each slash")
        return given[name]

    return _signed(read, _parameter("request", Request), _parameter(name, kind))


def _parameter(name: str, kind: Any, **default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, **default)


def _signed(read: Callable[..., Any], *parameters: inspect.Parameter) -> Callable[..., Any]:
    # What FastAPI reads, since the type is known only once the vocabulary is.
    read.__signature__ = inspect.Signature(list(parameters))  # type: ignore[attr-defined]
    return read


def check_encoded(raw: bytes, where: str) -> None:
    """Raise RequestValidationError when a path or query is not percent-encoded UTF-8.

    What is not is decoded to something else, which may be the id of another.
    """
    try:
        unquote_to_bytes(raw).decode()
        is_encoded = raw.isascii()
    except UnicodeDecodeError:
        is_encoded = False
    if not is_encoded:
        raise _badly_encoded(where, "Input should be percent-encoded UTF-8")


def _badly_encoded(where: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": "encoding", "loc": (where,), "msg": message}])
