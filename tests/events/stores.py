"""Stores for tests, and what goes into them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from recsys.events.store import EventStore
from recsys.events.types import Event, Item

T = TypeVar("T")


def with_store(
    url: str, use: Callable[[EventStore], Awaitable[T]], *, integers: bool = True, **options: Any
) -> T:
    async def run() -> T:
        store = await EventStore.open(
            url, holds_integer_users=integers, holds_integer_items=integers, **options
        )
        try:
            return await use(store)
        finally:
            await store.close()

    return asyncio.run(run())


def event(event_id: str, user_id: int | str = 1, item_id: int | str = 10, **more) -> Event:
    values = {"type": "like", "value": None, "timestamp": 1_000_000_000, **more}
    return Event(event_id, user_id, item_id, **values)


def item(item_id: int | str, title: str = "A", **more) -> Item:
    values = {"description": "", "genres": "", "year": None, "release_date": "", **more}
    return Item(item_id, title, text_vector=None, text_fingerprint=None, **values)


async def all_events(store: EventStore) -> list[Event]:
    return [one async for page in store.events(batch_size=7) for one in page]
