"""What each request has to pass before anything of it is read, whatever its route."""

from collections.abc import Sequence

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.api.callers import (
    Caller,
    HostNames,
    Told,
    client_of,
    foreign_page,
    is_json,
    is_loopback,
    read_headers,
)
from recsys.api.keys import CALLER, REMEDY, Gate
from recsys.api.rate_limit import RateLimit, WrongKeys

_HEALTH = "/health/"


class RequestGuard:
    """ASGI middleware that refuses what a web page, a guesser or too eager a client sends.

    What passes has a ``Caller`` in its scope. ``/health/*``, which tells nothing, is for whoever
    asks, however often; only pages of other sites are kept out.

    Args:
        host_names: of this machine. rate_limit: of one client; None for none.
    """

    def __init__(
        self, app: ASGIApp, gate: Gate, host_names: HostNames, rate_limit: RateLimit | None
    ) -> None:
        self.app = app
        self.gate = gate
        self.host_names = host_names
        self.rate_limit = rate_limit
        self.wrong_keys = WrongKeys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = await self._refusal(scope)
        await (self.app if refusal is None else refusal)(scope, receive, send)

    async def _refusal(self, scope: Scope) -> JSONResponse | None:
        told = read_headers(scope["headers"])
        address = scope["client"][0] if scope.get("client") else None
        client = client_of(address)
        page = foreign_page(told)
        if page is not None:
            return _refused(
                403,
                f"expected a request of no other site's page; found {page}; "
                "ask from a program, or from a page of this server",
            )
        if not is_json(scope["method"], told):
            found = _shown(told.all(b"content-type"))
            return _refused(
                415,
                f"expected a body of Content-Type application/json, or none; found type {found}; "
                "send Content-Type: application/json",
            )
        is_health = scope["path"].startswith(_HEALTH)
        key, wait, keys = None, 0, told.all(b"x-api-key")
        if keys and self.gate.has_keys:
            key = self.gate.known(keys)
            wait = await self.wrong_keys.seconds_to_wait(client, key)
            key = None if wait else key
        if self.rate_limit is not None and not is_health:
            counted = client if key is None else f"key {key}"
            seconds = await self.rate_limit.seconds_to_wait(counted)
            if seconds:
                return _too_many(self.rate_limit, seconds)
        elsewhere = None
        if not self.gate.has_keys:
            is_here = is_loopback(address)
            if is_here and not is_health and not self.host_names.include(told.all(b"host")):
                found = _shown(told.all(b"host"))
                return _refused(
                    403,
                    "expected a Host of this machine (localhost, 127.0.0.1 or [::1]), as no API "
                    f"keys are set; found {found}; ask for one of these, set "
                    f"allowed_hosts=[<name>] or {REMEDY}",
                )
            elsewhere = _elsewhere(told, is_here)
        scope[CALLER] = Caller(client, key, bool(keys), wait, elsewhere)
        return None


def _elsewhere(told: Told, is_here: bool) -> str | None:
    if not is_here:
        return "another"
    # Whoever asks through a proxy here looks like a client here.
    return None if told.proxy is None else f"{told.proxy.decode('latin-1')} of a proxy"


def _shown(values: Sequence[bytes]) -> str:
    return b", ".join(values)[:100].decode("latin-1") or "none"


def _refused(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)


def _too_many(rate: RateLimit, seconds: int) -> JSONResponse:
    detail = f"expected at most {rate}; found more; retry in {seconds} s"
    return JSONResponse({"detail": detail}, 429, {"Retry-After": str(seconds)})
