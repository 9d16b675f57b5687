"""How often one client may ask."""

import hashlib
import math
import time

import limits
from fastapi import HTTPException, Request, status
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from recsys.errors import InputError


class RateLimit:
    """A moving window per API key, or per address where there is none.

    Each worker counts for itself: with several, a client may ask as many times as often.

    Args:
        rate: such as ``20/second`` or ``1000/minute``.

    Raises:
        InputError: when ``rate`` is nothing of the kind.
    """

    def __init__(self, rate: str) -> None:
        try:
            self._rate = limits.parse(rate)
        except ValueError as error:
            raise InputError(
                "a rate such as 20/second", repr(rate), "set rate_limit=20/second, or null"
            ) from error
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def admit(self, request: Request) -> None:
        """Let the request pass, or answer 429 with the seconds to wait."""
        client = _client(request)
        if not await self._limiter.hit(self._rate, client):
            window = await self._limiter.get_window_stats(self._rate, client)
            wait = max(1, math.ceil(window.reset_time - time.time()))
            raise HTTPException(
                status.HTTP_429_TOO_MANY_REQUESTS,
                f"expected at most {self._rate}; found more; retry in {wait} s",
                headers={"Retry-After": str(wait)},
            )


def _client(request: Request) -> str:
    key = request.headers.get("X-API-Key")
    if key is not None:
        return "key " + hashlib.sha256(key.encode("latin-1")).hexdigest()
    return "address " + (request.client.host if request.client is not None else "")
