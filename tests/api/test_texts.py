"""Texts of items and queries that wait for the text model."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from recsys.api.batcher import OverloadedError
from recsys.api.texts import MAX_WAITING, Texts
from recsys.stored_state import TextUnavailableError
from recsys.text import from_config

MANIFEST = {"text": {"fingerprint": "x"}, "config": {"text": {"name": "x"}}}


class Encoder:
    """Encodes the first text once ``go_on`` is set, and notes what it is given."""

    fingerprint = "x"
    dim = 2

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.started, self.go_on = threading.Event(), threading.Event()
        self.broken = False

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        if list(texts) == [""]:  # as it is loaded
            return np.zeros((1, 2), np.float32)
        self.batches.append(list(texts))
        self.started.set()
        assert self.go_on.wait(20)
        if self.broken:
            raise RuntimeError("out of order")
        return np.array([[len(text), 1] for text in texts], np.float32)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    encoder = Encoder()
    monkeypatch.setattr(from_config, "encoder_from_config", lambda config, model: encoder)
    return encoder


async def begun(texts: Texts, encoder: Encoder) -> asyncio.Task:
    """A text that is being encoded, behind which others wait."""
    task = asyncio.ensure_future(texts.encode(MANIFEST, "first"))
    await asyncio.to_thread(encoder.started.wait, 20)
    return task


def test_each_text_gets_its_vector(encoder: Encoder) -> None:
    encoder.go_on.set()

    async def ask() -> list[np.ndarray | None]:
        texts = Texts()
        return await asyncio.gather(
            *(texts.encode_query(MANIFEST, "a" * n, 20) for n in range(1, 40))
        )

    found = asyncio.run(ask())
    assert [int(one[0]) for one in found] == list(range(1, 40))
    assert max(len(batch) for batch in encoder.batches) <= 16


def test_items_have_their_turn_before_queries(encoder: Encoder) -> None:
    async def ask() -> None:
        texts = Texts()
        first = await begun(texts, encoder)
        queries = [
            asyncio.ensure_future(texts.encode_query(MANIFEST, f"query {n}", 20)) for n in range(30)
        ]
        await asyncio.sleep(0)
        item = asyncio.ensure_future(texts.encode(MANIFEST, "item"))
        await asyncio.sleep(0)
        encoder.go_on.set()
        await asyncio.gather(first, item, *queries)

    asyncio.run(ask())
    assert encoder.batches[:2] == [["first"], ["item"]]


def test_what_nobody_waits_for_is_not_encoded(encoder: Encoder) -> None:
    async def ask() -> tuple[object, object]:
        texts = Texts()
        first = await begun(texts, encoder)
        gone = asyncio.ensure_future(texts.encode_query(MANIFEST, "gone", 20))
        await asyncio.sleep(0)
        gone.cancel()
        late = await texts.encode_query(MANIFEST, "late", 0.01)
        encoder.go_on.set()
        await first
        return late, await texts.encode_query(MANIFEST, "next", 20)

    late, found = asyncio.run(ask())
    assert late is None
    assert found is not None
    assert encoder.batches == [["first"], ["next"]]


def test_no_more_wait_than_there_is_room_for(encoder: Encoder) -> None:
    async def ask() -> None:
        texts = Texts()
        first = await begun(texts, encoder)
        waiting = [
            asyncio.ensure_future(texts.encode_query(MANIFEST, f"{n}", 20))
            for n in range(MAX_WAITING)
        ]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await texts.encode_query(MANIFEST, "one more", 20)
        item = asyncio.ensure_future(texts.encode(MANIFEST, "item"))  # has room of its own
        await asyncio.sleep(0)
        encoder.go_on.set()
        await asyncio.gather(first, item, *waiting)

    asyncio.run(ask())


def test_an_item_does_not_wait_for_ever(encoder: Encoder) -> None:
    async def ask() -> None:
        texts = Texts()
        first = await begun(texts, encoder)
        with pytest.raises(OverloadedError):
            await texts.encode(MANIFEST, "item", seconds=0.01)
        encoder.go_on.set()
        await first

    asyncio.run(ask())


def test_an_encoder_that_fails_is_told_and_asked_again(encoder: Encoder, caplog) -> None:
    encoder.go_on.set()

    async def ask() -> None:
        texts = Texts()
        encoder.broken = True
        with pytest.raises(TextUnavailableError, match="out of order"):
            await texts.encode(MANIFEST, "item")
        encoder.broken = False
        assert (await texts.encode(MANIFEST, "item"))[0] == 4
        with pytest.raises(TextUnavailableError, match="found another one"):
            await texts.encode({"text": {"fingerprint": "y"}}, "item")

    asyncio.run(ask())


def test_the_same_text_for_many_is_encoded_once(encoder: Encoder) -> None:
    async def ask() -> list[np.ndarray | None]:
        texts = Texts()
        first = await begun(texts, encoder)
        asked = [
            asyncio.ensure_future(texts.encode_query(MANIFEST, "same", 20)) for _ in range(100)
        ]
        await asyncio.sleep(0)
        asked.pop().cancel()  # which takes nobody else's answer along
        await asyncio.sleep(0)
        encoder.go_on.set()
        await first
        return await asyncio.gather(*asked)

    found = asyncio.run(ask())
    assert len(found) == 99
    assert {int(one[0]) for one in found} == {4}
    assert encoder.batches == [["first"], ["same"]]
