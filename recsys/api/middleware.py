"""What every request gets: an id, security headers, a measurement, a line in the log.

One layer for all of it, since each layer more around the application costs every request.
"""

import logging
import random
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.api.logs import request_id
from recsys.api.telemetry import Telemetry

log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
MAX_BODY_BYTES = 1_000_000
"""FastAPI refuses larger ones (413)."""

_ID_HEADER = REQUEST_ID.lower().encode()
_PLAIN_ID = re.compile(rb"[\w.:-]{1,128}", re.ASCII)
_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


class Envelope:
    """ASGI middleware around all others.

    An id that the client sends in ``X-Request-ID`` is kept, so that a request can be followed
    through several services.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app = app
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        name = _id_of(scope)
        token = request_id.set(name)
        status = 500

        async def sealed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = message.get("headers", [])
                names = {key for key, _ in given}
                added = [header for header in _SECURITY if header[0] not in names]
                message["headers"] = [*given, *added, (_ID_HEADER, name.encode())]
            await send(message)

        try:
            await self.app(scope, receive, sealed)
        finally:
            seconds = time.perf_counter() - started
            # What matches no route shares one label: paths that clients make up are without end.
            route = getattr(scope.get("route"), "path_format", "none")
            self.telemetry.request(route, status, seconds)
            if log.isEnabledFor(logging.INFO):
                _log(scope, status, seconds)
            request_id.reset(token)


def _id_of(scope: Scope) -> str:
    """The client's, where it is a plain one, else a new one."""
    for key, value in scope["headers"]:
        if key == _ID_HEADER:
            return value.decode() if _PLAIN_ID.fullmatch(value) else _new_id()
    return _new_id()


def _new_id() -> str:
    return f"{random.getrandbits(128):032x}"


def _log(scope: Scope, status: int, seconds: float) -> None:
    fields = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode("latin-1"),
        "status": status,
        "milliseconds": round(1e3 * seconds, 3),
        "client": scope["client"][0] if scope.get("client") else None,
    }
    log.info("request", extra={"fields": fields})
