"""Traces of requests for an OpenTelemetry collector: where a request's time has gone.

FastAPI itself makes a span per request once it has a tracer provider; what is known here alone, the
stages and what came of them, is added to it. Needs the packages of ``requirements-tracing.txt``.
"""

import os
import random
import threading
import time
from collections.abc import Coroutine, MutableMapping
from contextvars import ContextVar
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.api.batcher import Answer, BatchTimes
from recsys.api.logs import request_id

_TRACES_PATH = "/v1/traces"
_PARENT = b"traceparent"
# A collector that does not answer costs its spans, never requests, nor a long wait at the end.
_SECONDS_TO_EXPORT = 2.0
_SECONDS_TO_FLUSH = 2.0
# Asked every few seconds by machines, which nobody wants to read traces of.
_UNTRACED = ("/health/", "/metrics")


class Tracing:
    """Sends spans to a collector, from a thread of its own.

    Args:
        endpoint: of an OTLP/HTTP receiver, such as ``http://localhost:4318``.
        sample_rate: share of requests that are traced, of those that come without a trace; of the
            others the one who began the trace decides.
        service_name: whose spans they are.
    """

    def __init__(self, endpoint: str, sample_rate: float, service_name: str) -> None:
        url = endpoint.rstrip("/").removesuffix(_TRACES_PATH) + _TRACES_PATH
        self._sample_rate = sample_rate
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON),  # of what _is_left_out lets through
            resource=Resource.create({"service.name": service_name, "process.pid": os.getpid()}),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(url, timeout=_SECONDS_TO_EXPORT)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self._provider.get_tracer("recsys")

    def settings(self) -> TelemetryConfig:
        """For FastAPI: a span per request, and nothing else of what it could tell."""
        return {
            "tracer_provider": self._provider,
            "exclude": self._is_left_out,
            "operation_spans": False,
            "metrics": False,
            "logs": False,
            "auto_configure": False,
        }

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application with spans that say what came of a request."""
        return _TracedRequests(app, self.tracer)

    def _is_left_out(self, scope: MutableMapping[str, Any]) -> bool:
        """Whether a request is not sampled.

        This is decided here and not by a sampler of the provider, since FastAPI asks that only
        after it has put a span's attributes together, which takes longer than a cached answer.
        """
        if scope["path"].startswith(_UNTRACED):
            return True
        for key, value in scope["headers"]:
            if key == _PARENT:
                parent = propagate.extract({_PARENT.decode(): value.decode("latin-1")})
                context = trace.get_current_span(parent).get_span_context()
                if context.is_valid:
                    return not context.trace_flags.sampled
        return random.random() >= self._sample_rate

    async def traced(self, answering: Coroutine[Any, Any, Answer], version: str) -> Answer:
        """What ``answering`` returns, after its steps have been told to the request's trace."""
        current = _current.get()
        if current is None:
            return await answering
        asked = time.monotonic()
        answer = await answering
        current.answered(asked, answer, version)
        return answer

    def cached(self, hit: bool, version: str) -> None:
        """The cache was asked for the list of the request."""
        current = _current.get()
        if current is not None:
            current.cached(hit, version)

    def close(self) -> None:
        """Send what is left, for a short while."""
        # The provider would wait for half a minute.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_SECONDS_TO_FLUSH)


class _TracedRequests:
    """ASGI middleware that completes FastAPI's span of each sampled request."""

    def __init__(self, app: ASGIApp, tracer: trace.Tracer) -> None:
        self.app = app
        self.tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        span = trace.get_current_span()
        if scope["type"] != "http" or not span.is_recording():
            await self.app(scope, receive, send)
            return
        request = _RequestTrace(self.tracer, span)

        async def noting(message: Message) -> None:
            # FastAPI ends the span with the last part of the answer.
            if message["type"] == "http.response.start":
                request.answering(scope)
            await send(message)

        token = _current.set(request)
        try:
            await self.app(scope, receive, noting)
        finally:
            _current.reset(token)


class _RequestTrace:
    """The span of one request, and what the request's lists add to it."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        # Steps are timed by a clock that is never set; spans want the time of day.
        self._clock_began = time.time_ns() - time.monotonic_ns()
        self._sources: set[str] = set()
        self._fallbacks: set[str] = set()
        self._told: set[BatchTimes | None] = set()

    def answered(self, asked: float, answer: Answer, version: str) -> None:
        """A list was made. asked: when, as of ``time.monotonic``."""
        self._span.set_attribute("recsys.model_version", version)
        self._sources.add(answer.ranked.source)
        if answer.fallback is not None:
            self._fallbacks.add(answer.fallback)
        # Lists of one request often share a batch.
        if answer.times not in self._told:
            self._told.add(answer.times)
            self._tell(asked, answer.times)

    def cached(self, hit: bool, version: str) -> None:
        """The list was looked up."""
        self._span.set_attribute("recsys.cache_hit", hit)
        if hit:
            self._span.set_attribute("recsys.model_version", version)

    def answering(self, scope: Scope) -> None:
        """The answer begins: all is known."""
        span, route = self._span, getattr(scope.get("route"), "path_format", None)
        if route is not None:  # FastAPI does not see the plain requests
            span.update_name(f"{scope['method']} {route}")
            span.set_attribute("http.route", route)
        name = request_id.get()
        if name is not None:
            span.set_attribute("recsys.request_id", name)
        if self._sources:
            span.set_attribute("recsys.source", ",".join(sorted(self._sources)))
        if self._fallbacks:
            span.set_attribute("recsys.fallback", ",".join(sorted(self._fallbacks)))

    def _tell(self, asked: float, times: BatchTimes | None) -> None:
        steps = list(times.steps) if times is not None else []
        size = {} if times is None else {"recsys.batch_size": times.size}
        now = time.monotonic()
        queue = self._child("queue", asked, size)
        queue.end(self._time(steps[0].started if steps else now))
        for step in steps:
            span = self._child(step.name, step.started, size)
            if step.failed:
                span.set_status(trace.StatusCode.ERROR)
            ended = step.ended
            if ended is None:  # the deadline has passed, and the answer does without it
                span.set_attribute("recsys.unfinished", True)
            span.end(self._time(now if ended is None else ended))

    def _child(self, name: str, started: float, attributes: dict[str, int]) -> trace.Span:
        parent = trace.set_span_in_context(self._span)
        return self._tracer.start_span(
            name, parent, attributes=attributes, start_time=self._time(started)
        )

    def _time(self, seconds: float) -> int:
        return self._clock_began + round(seconds * 1e9)


_current: ContextVar[_RequestTrace | None] = ContextVar("request_trace", default=None)
