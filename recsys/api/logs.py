"""One line of JSON per event on the standard error stream, with the id of the request."""

import json
import logging
import re
import time
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.errors import InputError

log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_LEVELS = ("critical", "error", "warning", "info", "debug")
_PLAIN_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


class JsonFormatter(logging.Formatter):
    """Time, level, logger and message; what ``extra={"fields": {...}}`` holds; the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request_id = _request_id.get()
        if request_id is not None:
            entry["request_id"] = request_id
        entry |= getattr(record, "fields", {})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def check_level(level: str) -> None:
    """Raise InputError on a name that is no level's."""
    if level not in _LEVELS:
        expected = f"log_level to be one of {', '.join(_LEVELS)}"
        raise InputError(expected, repr(level), "set log_level=info")


def log_config(level: str) -> dict[str, Any]:
    """For ``logging.config`` and uvicorn: everything as JSON, uvicorn's own access log left out."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"json": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"handlers": ["json"], "level": level.upper()},
        # Named, since the command line has set a level of its own for the product's.
        "loggers": {name: {"level": level.upper()} for name in ("recsys", "uvicorn")},
    }


class RequestLog:
    """ASGI middleware: gives each request an id, answers with it, and logs how the request ended.

    An id that the client sends in ``X-Request-ID`` is kept, so that it can be followed through
    several services.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _PLAIN_ID.fullmatch(given) else uuid.uuid4().hex
        token = _request_id.set(request_id)
        started = time.perf_counter()
        status = 500

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self.app(scope, receive, named)
        finally:
            if log.isEnabledFor(logging.INFO):
                fields = {
                    "method": scope["method"],
                    "path": scope["path"],
                    "query": scope["query_string"].decode("latin-1"),
                    "status": status,
                    "milliseconds": round(1e3 * (time.perf_counter() - started), 3),
                    "client": scope["client"][0] if scope.get("client") else None,
                }
                log.info("request", extra={"fields": fields})
            _request_id.reset(token)
