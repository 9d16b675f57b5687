"""How often one client may ask, and guess."""

import math
import time
from collections import OrderedDict

import limits
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from recsys.errors import InputError

WRONG_KEYS = limits.parse("10/minute")
_MAX_ADMITTED = 10_000


class RateLimit:
    """A moving window for each client.

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

    def __str__(self) -> str:
        return str(self._rate)

    async def seconds_to_wait(self, client: str) -> int:
        """0, and the request counts; or after how many seconds there is room for it."""
        if await self._limiter.hit(self._rate, client):
            return 0
        return await _seconds_left(self._limiter, self._rate, client)


class WrongKeys:
    """Slows down who tries keys: after ten wrong ones in a minute, keys are not looked at.

    Else a right guess would tell itself from the wrong ones. A key that this client has used before
    is no guess, so that nobody can shut out those with whom they share an address.
    """

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._admitted: OrderedDict[tuple[str, int], None] = OrderedDict()

    async def seconds_to_wait(self, client: str, key: int | None) -> int:
        """0, or after how many seconds this client may try a key again.

        Args:
            key: the number of a known key; None for a wrong one.
        """
        if key is not None and (client, key) in self._admitted:
            self._admitted.move_to_end((client, key))
            return 0
        passes = self._limiter.hit if key is None else self._limiter.test
        if not await passes(WRONG_KEYS, client):
            return await _seconds_left(self._limiter, WRONG_KEYS, client)
        if key is not None:
            self._admitted[client, key] = None
            if len(self._admitted) > _MAX_ADMITTED:
                self._admitted.popitem(last=False)
        return 0


async def _seconds_left(
    limiter: MovingWindowRateLimiter, rate: limits.RateLimitItem, client: str
) -> int:
    window = await limiter.get_window_stats(rate, client)
    return max(1, math.ceil(window.reset_time - time.time()))
