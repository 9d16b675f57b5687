import asyncio

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.api.recommend import _while_wanted


def request_of(*messages: str) -> Request:
    """A request whose client sends these messages, and then waits."""
    left = list(messages)

    async def receive() -> dict:
        if left:
            return {"type": left.pop(0)}
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    return Request({"type": "http"}, receive)


def test_work_ends_when_its_client_goes_away() -> None:
    async def run() -> tuple[object, bool]:
        cancelled = False

        async def work() -> bytes:
            nonlocal cancelled
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                cancelled = True
                raise
            return b"late"

        found = await _while_wanted(request_of("http.request", "http.disconnect"), work())
        await asyncio.sleep(0)
        return found, cancelled

    assert asyncio.run(run()) == (None, True)


def test_work_is_answered_to_a_client_that_waits() -> None:
    async def run() -> bytes | None:
        async def work() -> bytes:
            await asyncio.sleep(0.01)
            return b"answer"

        return await _while_wanted(request_of("http.request"), work())

    assert asyncio.run(run()) == b"answer"


@pytest.mark.parametrize("number", [17, 100])
def test_more_explanations_than_can_wait_are_refused_for_good(
    client: TestClient, number: int
) -> None:
    body = {"user_ids": [101 + n % 90 for n in range(number)], "top_k": 1, "explain": True}
    response = client.post("/recommend", json=body)
    assert response.status_code == 422
    assert "at most 16 user_ids with explain" in response.text
    fitting = {**body, "user_ids": body["user_ids"][:16]}
    assert client.post("/recommend", json=fitting).status_code == 200


def test_more_users_than_may_wait_are_refused_for_good(models: ModelStore) -> None:
    """With 503 and Retry-After a client would come again and again."""
    with TestClient(create_app(models, ServingOptions(max_queue=5))) as client:
        response = client.post("/recommend", json={"user_ids": list(range(6))})
        assert response.status_code == 400
        assert "at most 5 users at once" in response.json()["detail"]
        assert client.post("/recommend", json={"user_ids": list(range(5))}).status_code == 200
