"""How often one client may ask."""

import math
import time

import limits
from fastapi import HTTPException, Request, status
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from recsys.api.keys import HEADER, Gate
from recsys.errors import InputError


class RateLimit:
    """A moving window per known API key, or per address: a made-up key opens no window of its own.

    Each worker counts for itself: with several, a client may ask as many times as often.

    Args:
        rate: such as ``20/second`` or ``1000/minute``. gate: knows the keys.

    Raises:
        InputError: when ``rate`` is nothing of the kind.
    """

    def __init__(self, rate: str, gate: Gate) -> None:
        try:
            self._rate = limits.parse(rate)
        except ValueError as error:
            raise InputError(
                "a rate such as 20/second", repr(rate), "set rate_limit=20/second, or null"
            ) from error
        self._gate = gate
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def admit(self, request: Request) -> None:
        """Let the request pass, or answer 429 with the seconds to wait."""
        client = self._client(request)
        if not await self._limiter.hit(self._rate, client):
            window = await self._limiter.get_window_stats(self._rate, client)
            wait = max(1, math.ceil(window.reset_time - time.time()))
            raise HTTPException(
                status.HTTP_429_TOO_MANY_REQUESTS,
                f"expected at most {self._rate}; found more; retry in {wait} s",
                headers={"Retry-After": str(wait)},
            )

    def _client(self, request: Request) -> str:
        key = self._gate.known(request.headers.get(HEADER))
        if key is not None:
            return f"key {key}"
        return "address " + (request.client.host if request.client is not None else "")
