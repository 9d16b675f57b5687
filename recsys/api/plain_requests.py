"""A short way for ``GET /recommend`` with a user id and perhaps ``top_k``, and nothing unusual.

FastAPI's routing and validation take longer than a cached answer takes altogether. What is as plain
as nearly all requests are is answered here, by the same ``Service`` with the same bytes; all else,
wrong values included, goes on to FastAPI.
"""

import re
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.api.callers import Caller
from recsys.api.history_access import longest_plain_list
from recsys.api.keys import CALLER, Gate
from recsys.api.schemas import DEFAULT_TOP_K, MAX_TOP_K
from recsys.api.service import Service
from recsys.rules.ids import MAX_ID_LENGTH
from recsys.schema import ExternalId

PATH = "/recommend"
_DEADLINE = b"x-deadline-ms"
# Nothing that would have to be decoded.
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,17}")
_PLAIN_TEXT = re.compile(rb"[A-Za-z0-9._~-]{1,%d}" % MAX_ID_LENGTH)
_NUMBER = re.compile(rb"[1-9][0-9]{0,8}")


class PlainRequests:
    """ASGI middleware in front of FastAPI, behind ``RequestGuard``.

    Args:
        route: the route that these requests belong to, for the metrics.
    """

    def __init__(self, app: ASGIApp, service: Service, gate: Gate, route: Any) -> None:
        self.app = app
        self.service = service
        self.gate = gate
        self.route = route
        self.needs_key = service.options.keys_for_reads
        self.seconds = service.options.deadline_ms / 1000
        self.id_pattern = _INTEGER if service.holds_integer_users else _PLAIN_TEXT

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query, service = self._query(scope), self.service
        request = None if query is None else service.plain_request(*query)
        if request is None or service.leaves_to_chance(request):
            await self.app(scope, receive, send)
            return
        body = service.cached_body(request, with_titles=False)
        if body is None:
            try:
                body = await service.new_body(request, with_titles=False, seconds=self.seconds)
            except Exception:  # FastAPI meets it again, and knows how to say it
                await self.app(scope, receive, send)
                return
        scope["route"] = self.route
        headers = [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _query(self, scope: Scope) -> tuple[ExternalId, int] | None:
        """User id and ``top_k`` of a plain request; None for any other.

        A request that will have to wait is not plain either: whether its client stays is watched.
        """
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "GET":
            return None
        given = dict(part.partition(b"=")[::2] for part in scope["query_string"].split(b"&"))
        user_id = given.pop(b"user_id", b"")
        top_k = given.pop(b"top_k", None)
        if given or not self.id_pattern.fullmatch(user_id):
            return None
        if scope["query_string"].count(b"=") > 1 + (top_k is not None):  # one is repeated
            return None
        if top_k is not None and not _NUMBER.fullmatch(top_k):
            return None
        number = DEFAULT_TOP_K if top_k is None else int(top_k)
        if not 1 <= number <= MAX_TOP_K or self.service.is_busy:
            return None
        caller: Caller = scope[CALLER]
        if self.needs_key and caller.key is None:
            return None
        longest = longest_plain_list(len(self.service.models.current.items))
        if number > longest and not self.gate.admits(caller):
            return None
        if any(key == _DEADLINE for key, _ in scope["headers"]):
            return None
        text = user_id.decode()
        return (int(text) if self.service.holds_integer_users else text), number
