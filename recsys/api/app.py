"""The HTTP application around one loaded ``Recommender``."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request, Response, status
from fastapi.responses import JSONResponse

from recsys.api.schemas import (
    DEFAULT_TOP_K,
    MAX_TOP_K,
    Error,
    Health,
    Ready,
    Recommendations,
)
from recsys.errors import InputError
from recsys.recommender import Recommender
from recsys.schema import TITLE, ExternalId, RankedList
from recsys.schema import Request as ListRequest

_INT64 = 2**63


def create_app(recommender: Recommender) -> FastAPI:
    """The application that answers from ``recommender``.

    ``user_id`` has the type of the vocabulary's ids, so that a wrong one is refused (422) rather
    than taken for an unknown user.
    """
    # One thread for all inference: it never blocks the event loop, and requests do not compete for
    # cores that PyTorch and FAISS already use.
    inference = ThreadPoolExecutor(1, thread_name_prefix="inference")
    titles = recommender.item_frame[TITLE].to_numpy()
    user_id_parameter = _integer_user if recommender.users.holds_integers else _string_user

    async def answer(request: ListRequest) -> RankedList:
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(inference, recommender.recommend, [request])
        return answers[0]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # The first inference allocates and compiles; no user should wait for that.
        await answer(ListRequest(top_k=1, user_id=recommender.users.ids.tolist()[0]))
        app.state.ready = True
        yield
        app.state.ready = False

    app = FastAPI(
        title="Two-stage recommender",
        description="Two-tower retrieval through FAISS, re-ranked by a cross-encoder.",
        lifespan=lifespan,
    )
    app.state.ready = False

    @app.exception_handler(InputError)
    async def refuse(request: Request, error: InputError) -> JSONResponse:  # noqa: ARG001
        return JSONResponse({"detail": str(error)}, status.HTTP_400_BAD_REQUEST)

    @app.get(
        "/recommend",
        response_model_exclude_none=True,
        responses={status.HTTP_400_BAD_REQUEST: {"model": Error}},
        tags=["recommendations"],
    )
    async def recommend(
        user_id: Annotated[ExternalId, Depends(user_id_parameter)],
        top_k: Annotated[
            int, Query(ge=1, le=MAX_TOP_K, description="Number of items.")
        ] = DEFAULT_TOP_K,
        with_titles: Annotated[bool, Query(description="Add the items' titles.")] = False,
    ) -> Recommendations:
        """The best items for a user, without those the user already has."""
        ranked = await answer(ListRequest(top_k=top_k, user_id=user_id))
        named = titles[recommender.items.encode(ranked.item_ids) - 1].tolist()
        return Recommendations(
            user_id=user_id,
            top_items=ranked.item_ids,
            model_version=recommender.model_version,
            source=ranked.source,
            titles=named if with_titles else None,
        )

    @app.get("/health/live", tags=["health"])
    async def live() -> Health:
        """Whether the process answers at all."""
        return Health(status="ok")

    @app.get(
        "/health/ready",
        responses={status.HTTP_503_SERVICE_UNAVAILABLE: {"model": Ready}},
        tags=["health"],
    )
    async def ready(response: Response) -> Ready:
        """Whether the model is loaded and warm: send traffic only after 200."""
        if not app.state.ready:
            response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        text = "ok" if app.state.ready else "starting or stopping"
        return Ready(status=text, model_version=recommender.model_version)

    return app


def _integer_user(
    user_id: Annotated[
        int,
        Query(description="A user's id, as in training.", examples=[123], ge=-_INT64, lt=_INT64),
    ],
) -> ExternalId:
    return user_id


def _string_user(
    user_id: Annotated[
        str, Query(description="A user's id, as in training.", examples=["u42"], min_length=1)
    ],
) -> ExternalId:
    return user_id
