"""A client of a server's events, items and lists."""

import asyncio
import json
from http.client import HTTPConnection
from typing import Any

from recsys.events.store import EventStore


def ask(
    connection: HTTPConnection, method: str, path: str, body: Any = None
) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def event(event_id: str, user_id: int, item_id: int, type_: str = "like") -> dict[str, Any]:
    return {"event_id": event_id, "user_id": user_id, "item_id": item_id, "type": type_}


def post(connection: HTTPConnection, *events: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return ask(connection, "POST", "/events", {"events": list(events)})


def recommended(connection: HTTPConnection, user_id: int, top_k: int = 30) -> dict[str, Any]:
    status, found = ask(connection, "GET", f"/recommend?user_id={user_id}&top_k={top_k}")
    assert status == 200, found
    return found


def stored_event_ids(url: str) -> list[str]:
    async def read() -> list[str]:
        store = await EventStore.open(url)
        try:
            return [one.event_id async for page in store.events() for one in page]
        finally:
            await store.close()

    return asyncio.run(read())
