"""Users' events as a worker knows them: in memory, and read from the store when they are not."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from recsys.events.types import StoreUnavailableError, UserState
from recsys.request import UserEvents
from recsys.schema import ExternalId
from recsys.stored_state import as_events

ReadStates = Callable[[Sequence[ExternalId]], Awaitable[Mapping[ExternalId, UserState]]]
ReadNow = Callable[[ExternalId], UserState | None]
"""At once; None where that cannot be done."""

_MOST_AT_ONCE = 500


class LiveUsers:
    """``UserEvents`` by user, least recently used first out. For the event loop's thread alone.

    Args:
        read, read_now: from the store. max_events: kept of all users together, where a user counts
            as one, too.
    """

    def __init__(self, read: ReadStates, read_now: ReadNow, max_events: int) -> None:
        self._read = read
        self._read_now = read_now
        self.max_events = max_events
        self.num_events = 0
        self._store_number = 0
        self._kept: OrderedDict[ExternalId, UserEvents] = OrderedDict()
        self._waiting: dict[ExternalId, asyncio.Future[UserEvents]] = {}
        self._reading: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Users that are kept."""
        return len(self._kept)

    def known(self, user_id: ExternalId) -> UserEvents | None:
        """What is kept of a user; None when the store has to be asked."""
        found = self._kept.get(user_id)
        if found is not None:
            self._kept.move_to_end(user_id)
        return found

    def now(self, user_id: ExternalId) -> UserEvents | None:
        """What is kept, or can be read at once; None when the store has to be asked by ``of``."""
        found = self.known(user_id)
        if found is None and (state := self._read_now(user_id)) is not None:
            found = self._keep(user_id, as_events(state, self._store_number))
        return found

    async def of(self, user_id: ExternalId) -> UserEvents:
        """What is kept or stored of a user; who is asked for at the same time is read together.

        Raises:
            StoreUnavailableError: when it is not kept and cannot be read.
        """
        found = self.known(user_id)
        if found is not None:
            return found
        future = self._waiting.get(user_id)
        if future is None:
            future = self._waiting[user_id] = asyncio.get_running_loop().create_future()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_waiting())
        # One that leaves does not take the others' answer along.
        return await asyncio.shield(future)

    async def _read_waiting(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, {}
            try:
                read = await self.refresh(list(waiting))
            except Exception as error:
                for future in waiting.values():
                    future.set_exception(error)
                    future.exception()  # whoever waited may have gone
                if not isinstance(error, StoreUnavailableError):
                    raise
            else:
                for user_id, future in waiting.items():
                    future.set_result(read[user_id])

    async def refresh(self, user_ids: Sequence[ExternalId]) -> dict[ExternalId, UserEvents]:
        """Read these users from the store, whether or not they are kept, or can be.

        Raises:
            StoreUnavailableError: when they cannot be read; what is kept stays.
        """
        read: dict[ExternalId, UserEvents] = {}
        for start in range(0, len(user_ids), _MOST_AT_ONCE):
            some = user_ids[start : start + _MOST_AT_ONCE]
            number, states = self._store_number, await self._read(some)
            while number != self._store_number:  # read from the former one
                number, states = self._store_number, await self._read(some)
            for user_id in some:
                read[user_id] = self._keep(user_id, as_events(states.get(user_id), number))
        return read

    def _keep(self, user_id: ExternalId, events: UserEvents) -> UserEvents:
        """The latest that is known of the user."""
        old = self._kept.get(user_id)
        if old is not None:
            if old.version > events.version:  # read by another, later
                return old
            self.num_events -= _size(old)
        self._kept[user_id] = events
        self._kept.move_to_end(user_id)
        self.num_events += _size(events)
        while self.num_events > self.max_events and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self.num_events -= _size(dropped)
        return events

    def users(self) -> list[ExternalId]:
        """Who is kept."""
        return list(self._kept)

    def clear(self) -> None:
        """Drop everything, so that the store is asked again."""
        self._kept.clear()
        self.num_events = 0

    def begin_again(self) -> None:
        """Drop everything, since the store is another one, whose versions say something else."""
        self._store_number += 1
        self.clear()


def _size(events: UserEvents) -> int:
    return 1 + len(events.item_ids) + len(events.older) + len(events.dismissed)
