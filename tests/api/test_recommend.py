import asyncio

from fastapi import Request

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
