"""The HTTP application around the served model."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

from recsys.api.admin import admin_routes
from recsys.api.batcher import OverloadedError
from recsys.api.callers import HostNames
from recsys.api.features import feature_routes
from recsys.api.keys import VARIABLE, Gate
from recsys.api.live_routes import live_routes
from recsys.api.middleware import MAX_BODY_BYTES, Envelope
from recsys.api.models import ModelStore
from recsys.api.options import DEFAULT_OPTIONS, ServingOptions
from recsys.api.plain_requests import PlainRequests
from recsys.api.query_parameters import KnownParameters
from recsys.api.rate_limit import RateLimit
from recsys.api.recommend import recommend_routes
from recsys.api.request_guard import RequestGuard
from recsys.api.schemas import Error, Health, Invalid, Ready
from recsys.api.service import Service
from recsys.api.telemetry import Telemetry
from recsys.errors import InputError
from recsys.events.types import StoreUnavailableError
from recsys.recommender import Recommender
from recsys.stored_state import TextUnavailableError

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status.HTTP_403_FORBIDDEN: {
        "model": Error,
        "description": "From a web page of another site; or, where no API keys are set, under "
        "another name than this machine's, through a proxy, or from another machine.",
    },
    status.HTTP_413_CONTENT_TOO_LARGE: {"description": "The body is too large."},
    status.HTTP_415_UNSUPPORTED_MEDIA_TYPE: {"model": Error, "description": "Not JSON."},
    status.HTTP_422_UNPROCESSABLE_CONTENT: {"model": Invalid},
    status.HTTP_429_TOO_MANY_REQUESTS: {
        "model": Error,
        "description": "Too many requests, or wrong keys; Retry-After says when to come again.",
    },
}

log = logging.getLogger(__name__)


def create_app(
    models: ModelStore,
    options: ServingOptions = DEFAULT_OPTIONS,
    key_digests: Sequence[str] = (),
    telemetry: Telemetry | None = None,
) -> FastAPI:
    """The application that answers from ``models.current``.

    Args:
        key_digests: see ``recsys.api.keys.read_keys``.
        telemetry: where more processes than this one are to be measured together.

    Raises:
        InputError: when the options ask for keys and there are none, or for no rate or names.
    """
    if options.keys_for_reads and not key_digests:
        raise InputError(
            "API keys, since keys_for_reads is set",
            "none",
            f"set api_keys=<file> or {VARIABLE}, or keys_for_reads=false",
        )
    service, gate = Service(models, options, telemetry), Gate(key_digests)
    parameters, host_names = KnownParameters(), HostNames(options.allowed_hosts)
    rate_limit = None if options.rate_limit is None else RateLimit(options.rate_limit)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        _reload_on_hangup(models)
        parameters.read(app.openapi())
        await service.start()
        app.state.ready = True
        yield
        # The server has answered what it had accepted: nothing waits any more.
        app.state.ready = False
        await service.close()

    app = _Application(
        title="Two-stage recommender",
        description="Two-tower retrieval through FAISS, re-ranked by a cross-encoder.",
        lifespan=lifespan,
        max_body_size=MAX_BODY_BYTES,
        dependencies=[Depends(parameters)],
        responses=_REFUSALS,
        telemetry=None if service.tracing is None else service.tracing.settings(),
    )
    app.state.ready = False
    routes = recommend_routes(service, gate)
    admit_reads = [Depends(gate.admit_known)] if options.keys_for_reads else []
    app.include_router(routes, dependencies=admit_reads)
    # There is nothing between such a request and its answer.
    app.wrap(lambda inner: PlainRequests(inner, service, gate, routes.routes[0]))
    if service.tracing is not None:
        app.wrap(service.tracing.around)
    app.wrap(lambda inner: RequestGuard(inner, gate, host_names, rate_limit))
    app.wrap(lambda inner: Envelope(inner, service.telemetry))
    app.include_router(admin_routes(service, gate))
    # What is known of a user is told to fewer than what is recommended.
    app.include_router(feature_routes(service), dependencies=[Depends(gate.admit)])
    if service.live is not None:
        app.include_router(live_routes(service.live, gate, service.telemetry))

    @app.exception_handler(InputError)
    async def refuse(request: Request, error: InputError) -> JSONResponse:  # noqa: ARG001
        return JSONResponse({"detail": str(error)}, status.HTTP_400_BAD_REQUEST)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:  # noqa: ARG001
        # Without what was sent, which FastAPI repeats and JSON may not be able to hold.
        errors = [
            {
                "type": one["type"],
                "loc": [_printable(part) for part in one["loc"]],
                "msg": _printable(one["msg"]),
            }
            for one in error.errors()
        ]
        return JSONResponse({"detail": errors}, status.HTTP_422_UNPROCESSABLE_CONTENT)

    @app.exception_handler(OverloadedError)
    async def shed(request: Request, error: OverloadedError) -> JSONResponse:  # noqa: ARG001
        return JSONResponse(
            {"detail": str(error)},
            status.HTTP_503_SERVICE_UNAVAILABLE,
            headers={"Retry-After": str(error.retry_after)},
        )

    @app.exception_handler(StoreUnavailableError)
    @app.exception_handler(TextUnavailableError)
    async def unavailable(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
        return JSONResponse(
            {"detail": str(error)},
            status.HTTP_503_SERVICE_UNAVAILABLE,
            headers={"Retry-After": "1"},
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
        return Ready(status=text, model_version=models.current.model_version)

    @app.get("/metrics", response_class=Response, tags=["health"])
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(service.telemetry.page(), media_type=_METRICS_TYPE)

    return app


def _printable(part: str | int) -> str | int:
    """The same, with what UTF-8 cannot encode (lone surrogates) replaced."""
    return part.encode("utf-8", "replace").decode() if isinstance(part, str) else part


class _Application(FastAPI):
    """FastAPI with layers outside of its own, which answer without the cost of those."""

    def wrap(self, layer: Callable[[ASGIApp], ASGIApp]) -> None:
        """Put a layer around all that there is so far."""
        self._layers = [*getattr(self, "_layers", []), layer]

    def build_middleware_stack(self) -> ASGIApp:
        """Starlette's hook: called once, before the first request."""
        app = super().build_middleware_stack()
        for layer in self._layers:
            app = layer(app)
        return app


def _reload_on_hangup(models: ModelStore) -> None:
    """SIGHUP loads the newest bundle, as ``POST /admin/reload`` does; a failure is logged."""
    reloading: set[asyncio.Task[None]] = set()

    async def tell(reload: asyncio.Future[Recommender]) -> None:
        try:
            loaded = await reload
        except Exception as error:
            log.error("reload refused, %s goes on: %s", models.current.model_version, error)
        else:
            log.warning("serving %s from now on", loaded.model_version)

    def start() -> None:
        # One that is about to begin finds what is the newest then.
        if not models.newest_waits:
            task = asyncio.create_task(tell(models.queued_reload()))
            reloading.add(task)
            task.add_done_callback(reloading.discard)

    loop = asyncio.get_running_loop()
    # Only the main thread of a process may handle signals, and Windows has no SIGHUP.
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, start)
