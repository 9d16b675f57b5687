"""The routes that recommend."""

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

from annotated_types import Interval
from fastapi import APIRouter, Depends, Header, Query, Response, status
from fastapi import Request as HttpRequest

from recsys.api.batcher import Answer
from recsys.api.callers import Caller
from recsys.api.history_access import tells_history
from recsys.api.ids import STRICT, user_query
from recsys.api.keys import CALLER, Gate, check_key
from recsys.api.schemas import (
    DEFAULT_TOP_K,
    EXPLAIN,
    MAX_GENRES,
    MAX_QUERY_LENGTH,
    MAX_TOP_K,
    Error,
    Genre,
    Recommendations,
    RecommendBody,
    RecommendResults,
    RulesBody,
)
from recsys.api.service import Service
from recsys.api.texts import check_queries
from recsys.errors import InputError
from recsys.request import Request
from recsys.rules.ids import check_boosted, check_ids
from recsys.schema import ExternalId

_MAX_DEADLINE_MS = 60_000
_CLIENT_CLOSED_REQUEST = 499  # nobody reads it; nginx's number, for the metrics

_Year = Annotated[int, Interval(ge=1, le=9999), STRICT]

T = TypeVar("T")
_RESPONSES: dict[int | str, dict[str, object]] = {
    status.HTTP_400_BAD_REQUEST: {"model": Error},
    status.HTTP_401_UNAUTHORIZED: {"model": Error},
    status.HTTP_503_SERVICE_UNAVAILABLE: {
        "model": Error,
        "description": "More requests than can be answered; Retry-After says when to come again.",
    },
}


@dataclass(frozen=True)
class _Options:
    """How a list is asked for; see ``Service.list_of``. hurried: see ``is_hurried``."""

    seconds: float
    with_titles: bool
    query: str | None
    explained: bool
    untold: bool
    hurried: bool

    def of_list(self) -> dict[str, Any]:
        """The arguments of ``Service.list_of``."""
        return {key: value for key, value in vars(self).items() if key != "hurried"}


def recommend_routes(service: Service, gate: Gate) -> APIRouter:
    """``GET`` and ``POST /recommend``; the gate is for what tells histories.

    ``user_id`` has the type of the vocabulary's ids, so that a wrong one is refused (422) rather
    than taken for an unknown user.
    """
    router = APIRouter(tags=["recommendations"], responses=_RESPONSES)
    holds_integers = service.holds_integer_users
    user_id_parameter = user_query(holds_integers)
    default_seconds = service.options.deadline_ms / 1000

    async def seconds_of(
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

    def is_untold(
        http: HttpRequest, request: Request, query: str | None, *, explained: bool
    ) -> bool:
        """Whether the list has to be made without what is known of the user."""
        caller: Caller = http.scope[CALLER]
        if gate.admits(caller):
            return False
        num_items = len(service.models.current.items)
        told = tells_history(request, service.rules, num_items, query=query, explained=explained)
        if told and gate.has_keys and caller.sent_key:
            check_key(caller)  # a wrong one is told as such
        return told

    def is_hurried(http: HttpRequest, seconds: float) -> bool:
        """Whether who is told no history asks for a list in less time than the server takes."""
        return seconds < default_seconds and not gate.admits(http.scope[CALLER])

    async def listed(request: Request, options: _Options) -> Answer:
        started = time.monotonic()
        answer = await service.list_of(request, **options.of_list())
        late = answer.ranked.source == "popular" and answer.fallback is not None
        if options.hurried and late and request.user_id is not None:
            # What is missing from popular items is what was seen: not for who has time run out.
            left = max(options.seconds - (time.monotonic() - started), 0.0)
            again = replace(options, untold=True, seconds=left)
            answer = await service.list_of(request, **again.of_list())
        return answer

    @router.get("/recommend", response_model=Recommendations, response_model_exclude_none=True)
    async def recommend(
        http: HttpRequest,
        user_id: Annotated[ExternalId, Depends(user_id_parameter)],
        seconds: Annotated[float, Depends(seconds_of)],
        top_k: Annotated[
            int, Interval(ge=1, le=MAX_TOP_K), STRICT, Query(description="Number of items.")
        ] = DEFAULT_TOP_K,
        with_titles: Annotated[bool, Query(description="Add the items' titles.")] = False,
        query: Annotated[
            str | None,
            Query(min_length=1, max_length=MAX_QUERY_LENGTH, description="What is wanted."),
        ] = None,
        explain: Annotated[bool, Query(description=EXPLAIN)] = False,
        genre: Annotated[
            list[Genre], Query(max_length=MAX_GENRES, description="Items of one of these genres.")
        ] = [],  # noqa: B006
        exclude_genre: Annotated[
            list[Genre], Query(max_length=MAX_GENRES, description="Items of none of these genres.")
        ] = [],  # noqa: B006
        year_min: Annotated[_Year | None, Query()] = None,
        year_max: Annotated[_Year | None, Query()] = None,
        diversity: Annotated[
            float | None, Query(ge=0, le=1, description="0: by score; 1: as unlike as can be.")
        ] = None,
    ) -> Response:
        """The best items for a user, without those the user already has."""
        changes = {
            "genres_any": genre,
            "genres_none": exclude_genre,
            "year_min": year_min,
            "year_max": year_max,
            "diversity": diversity,
        }
        given = {name: value for name, value in changes.items() if value not in (None, [])}
        request = Request(top_k, user_id, rules=service.rules.with_changes(given))
        untold = is_untold(http, request, query, explained=explain)
        if query is not None:
            check_queries(service.models.current.manifest)
        hurried = is_hurried(http, seconds)
        is_plain = query is None and not (explain or untold or hurried)
        if is_plain:
            body = service.body_of(request, with_titles=with_titles, seconds=seconds)
        else:
            options = _Options(seconds, with_titles, query, explain, untold, hurried)
            body = _body(listed(request, options))
        waits = service.is_busy or not is_plain
        answered = await (_while_wanted(http, body) if waits else body)
        if answered is None:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
        return Response(answered, media_type="application/json")

    @router.post("/recommend", response_model=RecommendResults, response_model_exclude_none=True)
    async def recommend_many(
        http: HttpRequest, body: RecommendBody, seconds: Annotated[float, Depends(seconds_of)]
    ) -> Response:
        """Lists for several users, or for a history that is not stored."""
        changed = body.rules or RulesBody()
        items = [*(body.history or []), *body.exclude, *changed.items()]
        check_ids("item", items, service.models.current.items.holds_integers)
        check_boosted(changed.boost, service.models.current.items.holds_integers)
        check_ids("user", body.user_ids or [], holds_integers)
        if body.context is not None:
            service.models.current.histories.check_context(body.context)
        service.models.current.histories.check_types(changed.exclude_types)
        rules = service.rules.with_changes(changed.changes())
        users: Sequence[ExternalId | None] = body.user_ids or [None]
        if len(users) > service.options.max_queue:
            raise InputError(
                f"at most {service.options.max_queue} users at once, as may wait here",
                str(len(users)),
                "ask for them in several requests",
            )
        requests = [
            Request(
                body.top_k,
                user_id=user_id,
                history=body.history,
                exclude=body.exclude,
                context=body.context,
                rules=rules,
            )
            for user_id in users
        ]
        untold = is_untold(http, requests[0], body.query, explained=body.explain)
        if body.query is not None:
            check_queries(service.models.current.manifest)
        options = _Options(
            seconds,
            body.with_titles,
            body.query,
            body.explain,
            untold,
            hurried=is_hurried(http, seconds),
        )
        answers = [listed(request, options) for request in requests]
        results = await _while_wanted(http, _together(answers))
        if results is None:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
        # Put together of what the lists' threads have made: a large answer would hold up the loop.
        together = b'{"results":[%s]}' % b",".join(answer.body for answer in results)
        return Response(together, media_type="application/json")

    return router


async def _body(answer: Awaitable[Answer]) -> bytes:
    return (await answer).body


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
