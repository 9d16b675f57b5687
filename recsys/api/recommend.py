"""The routes that recommend."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, Query, Response, status
from fastapi import Request as HttpRequest

from recsys.api.schemas import (
    DEFAULT_TOP_K,
    MAX_ID_LENGTH,
    MAX_TOP_K,
    Error,
    Recommendations,
    RecommendBody,
    RecommendResults,
)
from recsys.api.service import Service
from recsys.errors import InputError
from recsys.request import Request
from recsys.schema import ExternalId

_INT64 = 2**63
_MAX_DEADLINE_MS = 60_000
_CLIENT_CLOSED_REQUEST = 499  # nobody reads it; nginx's number, for the metrics

T = TypeVar("T")
_RESPONSES: dict[int | str, dict[str, object]] = {
    status.HTTP_400_BAD_REQUEST: {"model": Error},
    status.HTTP_503_SERVICE_UNAVAILABLE: {
        "model": Error,
        "description": "More requests than can be answered; Retry-After says when to come again.",
    },
}


def recommend_routes(service: Service) -> APIRouter:
    """``GET`` and ``POST /recommend``.

    ``user_id`` has the type of the vocabulary's ids, so that a wrong one is refused (422) rather
    than taken for an unknown user.
    """
    router = APIRouter(tags=["recommendations"], responses=_RESPONSES)
    holds_integers = service.holds_integer_users
    user_id_parameter = _integer_user if holds_integers else _string_user
    default_seconds = service.options.deadline_ms / 1000

    def seconds_of(
        x_deadline_ms: Annotated[
            float | None,
            Header(
                gt=0,
                le=_MAX_DEADLINE_MS,
                description="Answer within this time, if need be by a lesser stage.",
            ),
        ] = None,
    ) -> float:
        return default_seconds if x_deadline_ms is None else x_deadline_ms / 1000

    @router.get("/recommend", response_model=Recommendations, response_model_exclude_none=True)
    async def recommend(
        http: HttpRequest,
        user_id: Annotated[ExternalId, Depends(user_id_parameter)],
        seconds: Annotated[float, Depends(seconds_of)],
        top_k: Annotated[
            int, Query(ge=1, le=MAX_TOP_K, description="Number of items.")
        ] = DEFAULT_TOP_K,
        with_titles: Annotated[bool, Query(description="Add the items' titles.")] = False,
    ) -> Response:
        """The best items for a user, without those the user already has."""
        body = service.body_of(user_id, top_k, with_titles=with_titles, seconds=seconds)
        answered = await (_while_wanted(http, body) if service.is_busy else body)
        if answered is None:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
        return Response(answered, media_type="application/json")

    @router.post("/recommend", response_model=RecommendResults, response_model_exclude_none=True)
    async def recommend_many(
        http: HttpRequest, body: RecommendBody, seconds: Annotated[float, Depends(seconds_of)]
    ) -> RecommendResults | Response:
        """Lists for several users, or for a history that is not stored."""
        items = [*(body.history or []), *body.exclude]
        _check_type("item", items, service.models.current.items.holds_integers)
        _check_type("user", body.user_ids or [], holds_integers)
        if body.history is not None:
            requests = [Request(body.top_k, history=body.history, exclude=body.exclude)]
        else:
            users = body.user_ids or []
            requests = [Request(body.top_k, user_id=u, exclude=body.exclude) for u in users]
        answers = [
            service.list_of(request, with_titles=body.with_titles, seconds=seconds)
            for request in requests
        ]
        results = await _while_wanted(http, _together(answers))
        if results is None:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
        return RecommendResults.model_construct(results=results)

    return router


async def _together(answers: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All answers; where one fails, the others are not waited for and free their places."""
    tasks = [asyncio.create_task(answer) for answer in answers]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _while_wanted(http: HttpRequest, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of ``work``; None where the client goes away first, and work is cancelled then."""

    async def gone() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()


def _check_type(kind: str, ids: list[ExternalId], integers: bool) -> None:
    wanted, name = (int, "an integer") if integers else (str, "a string")
    for found in ids:
        told = repr(found)[:MAX_ID_LENGTH]
        if not isinstance(found, wanted):
            raise InputError(f"{name} for each {kind} id", told, "correct it")
        if isinstance(found, int) and not -_INT64 <= found < _INT64:
            raise InputError(f"{kind} ids of 64 bits", told, "correct it")


def _integer_user(
    user_id: Annotated[
        int,
        Query(description="A user's id, as in training.", examples=[123], ge=-_INT64, lt=_INT64),
    ],
) -> ExternalId:
    return user_id


def _string_user(
    user_id: Annotated[
        str,
        Query(
            description="A user's id, as in training.",
            examples=["u42"],
            min_length=1,
            max_length=MAX_ID_LENGTH,
        ),
    ],
) -> ExternalId:
    return user_id
