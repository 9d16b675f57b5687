"""Answers kept in memory: least recently used first out, bounded by bytes."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

from recsys.schema import ExternalId

# What an entry takes besides its body: the key's tuple, the dictionary's slot, the bytes object.
_OVERHEAD_BYTES = 512


class CacheKey(NamedTuple):
    """What an answer depends on: the user, what is asked, what is known of the user, the model, and
    the version of popularity; 0 where that is no part of it.
    """

    user_id: ExternalId
    asked: Hashable
    state: Hashable
    model: Hashable
    popularity: int = 0


class ResponseCache:
    """Bodies of responses by key. Used from the event loop's thread alone, hence without a lock.

    Args:
        max_bytes: of all entries together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._bodies: OrderedDict[CacheKey, bytes] = OrderedDict()

    def get(self, key: CacheKey) -> bytes | None:
        """The body that was put for ``key``, unless it had to make room."""
        body = self._bodies.get(key)
        if body is not None:
            self._bodies.move_to_end(key)
        return body

    def put(self, key: CacheKey, body: bytes) -> None:
        """Keep ``body``, and drop what was asked for longest ago until all fits."""
        size = len(body) + _OVERHEAD_BYTES
        if size > self.max_bytes:
            return
        old = self._bodies.pop(key, None)
        if old is not None:
            self.num_bytes -= len(old) + _OVERHEAD_BYTES
        self._bodies[key] = body
        self.num_bytes += size
        while self.num_bytes > self.max_bytes:
            _, dropped = self._bodies.popitem(last=False)
            self.num_bytes -= len(dropped) + _OVERHEAD_BYTES

    def users(self) -> set[ExternalId]:
        """For whom answers are kept."""
        return {key.user_id for key in self._bodies}

    def forget(self, user_id: ExternalId) -> None:
        """Drop all answers for a user."""
        for key in [key for key in self._bodies if key.user_id == user_id]:
            self.num_bytes -= len(self._bodies.pop(key)) + _OVERHEAD_BYTES
