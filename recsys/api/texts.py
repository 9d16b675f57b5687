"""Text vectors while serving: of new items, and of what people say they want."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.api.batcher import OverloadedError
from recsys.errors import InputError
from recsys.stored_state import TextUnavailableError
from recsys.text.encoder import TextEncoder
from recsys.text.from_config import encoder_of_bundle, fingerprint_of
from recsys.text.none import check_has_text

log = logging.getLogger(__name__)

MAX_WAITING = 64
"""Queries that may wait, and as many items; more are refused."""
SECONDS_FOR_ITEM = 30.0
"""The text model may have to be loaded first."""

_MOST_AT_ONCE = 16
_FEWEST_CHARACTERS, _MOST_CHARACTERS = 50, 1500
_SECONDS_AT_ONCE = 0.2
_SECONDS_TO_RETRY = 1
_SMOOTHING = 0.5


@dataclass(eq=False)
class _Job:
    manifest: Mapping[str, Any]
    text: str
    until: float  # as of ``time.monotonic``
    future: asyncio.Future[NDArray[np.float32]]
    num_waiting: int = 0


_Queue = OrderedDict[_Job, None]


class Texts:
    """Encodes texts as a bundle's were, in a thread of its own.

    The model is loaded when the first text comes, which takes seconds: most servers never need it.
    What is asked at the same time is encoded together, as much as takes a short while; items have
    their turn before queries. What nobody waits for any more is not encoded.

    Args:
        model: where it lies, see ``encoder_of_bundle``.
    """

    def __init__(self, model: str | None = None) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="texts")
        self._encoder: TextEncoder | None = None
        self._config: Mapping[str, Any] | None = None
        self._items: _Queue = OrderedDict()
        self._queries: _Queue = OrderedDict()
        self._encoding: asyncio.Task[None] | None = None
        self._seconds_per_character: float | None = None  # as long as none has been encoded

    async def load(self, manifest: Mapping[str, Any]) -> None:
        """Have the text model of a bundle loaded.

        Raises:
            TextUnavailableError: when there is no such encoder here.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._load, manifest)

    async def encode(
        self, manifest: Mapping[str, Any], text: str, seconds: float = SECONDS_FOR_ITEM
    ) -> NDArray[np.float32]:
        """The vector float32 [T] of an item's text.

        Args:
            manifest: of the bundle whose vectors it is to be compared with.

        Raises:
            TextUnavailableError: when there is no such encoder here.
            OverloadedError: when too many texts wait, or when it takes longer than ``seconds``.
        """
        try:
            return await self._encoded(self._items, manifest, text, seconds)
        except TimeoutError as error:
            raise OverloadedError(_SECONDS_TO_RETRY) from error

    async def encode_query(
        self, manifest: Mapping[str, Any], text: str, seconds: float
    ) -> NDArray[np.float32] | None:
        """The vector float32 [T] of what somebody wants; None when ``seconds`` are not enough.

        Raises:
            TextUnavailableError: when there is no such encoder here.
            OverloadedError: when too many texts wait.
        """
        try:
            return await self._encoded(self._queries, manifest, text, seconds)
        except TimeoutError:
            return None

    async def _encoded(
        self, queue: _Queue, manifest: Mapping[str, Any], text: str, seconds: float
    ) -> NDArray[np.float32]:
        until = time.monotonic() + seconds
        # The same text for several users is one text.
        same = (job for job in queue if job.text == text and job.manifest is manifest)
        job = next(same, None)
        if job is None:
            if len(queue) >= MAX_WAITING:
                raise OverloadedError(_SECONDS_TO_RETRY)
            job = _Job(manifest, text, until, asyncio.get_running_loop().create_future())
            queue[job] = None
        job.num_waiting, job.until = job.num_waiting + 1, max(job.until, until)
        if self._encoding is None or self._encoding.done():
            self._encoding = asyncio.create_task(self._encode_all())
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(job.future)
        finally:
            job.num_waiting -= 1
            if not job.num_waiting:
                queue.pop(job, None)

    async def _encode_all(self) -> None:
        loop = asyncio.get_running_loop()
        while waiting := self._items or self._queries:
            # After a reload, texts for two bundles may wait side by side.
            manifest = next(iter(waiting)).manifest
            jobs: list[_Job] = []
            try:
                # While a model is loaded, those who can't wait for it leave.
                await loop.run_in_executor(self._thread, self._load, manifest)
                jobs = self._taken(manifest)
                if jobs:
                    texts = [job.text for job in jobs]
                    started = time.monotonic()
                    vectors = await loop.run_in_executor(
                        self._thread, self.encode_now, manifest, texts
                    )
                    self._measured(time.monotonic() - started, jobs)
            except Exception as error:
                if not isinstance(error, TextUnavailableError):
                    log.exception("texts could not be encoded")
                    error = TextUnavailableError(f"texts could not be encoded: {error!r}")
                for job in jobs or self._all_of(manifest):
                    job.future.set_exception(error)
                    job.future.exception()  # whoever waited may have gone
            else:
                for job, vector in zip(jobs, vectors if jobs else (), strict=True):
                    job.future.set_result(vector)

    def _taken(self, manifest: Mapping[str, Any]) -> list[_Job]:
        """Jobs of one bundle to be encoded next: items where there are any, else queries."""
        queue = self._items or self._queries
        rate = self._seconds_per_character
        # As long as nothing is known, texts are encoded one by one.
        most = 1 if rate is None else _MOST_AT_ONCE
        now, seconds = time.monotonic(), 0.0
        taken: list[_Job] = []
        for job in [job for job in queue if job.manifest is manifest]:
            own = 0.0 if rate is None else rate * _length(job.text)
            if taken and (seconds + own > _SECONDS_AT_ONCE or len(taken) == most):
                break
            del queue[job]
            # Who would wait in vain is left to be told so; the last one shows what it takes now.
            if job.until > now + own or not (taken or queue):
                taken.append(job)
                seconds += own
        return taken

    def _measured(self, seconds: float, jobs: Sequence[_Job]) -> None:
        found = seconds / sum(_length(job.text) for job in jobs)
        known = self._seconds_per_character
        self._seconds_per_character = (
            found if known is None else known + _SMOOTHING * (found - known)
        )

    def _all_of(self, manifest: Mapping[str, Any]) -> list[_Job]:
        taken = []
        for queue in (self._items, self._queries):
            for job in [job for job in queue if job.manifest is manifest]:
                del queue[job]
                taken.append(job)
        return taken

    def _load(self, manifest: Mapping[str, Any]) -> None:
        try:
            self._encoder_for(manifest)
        except InputError as error:
            raise TextUnavailableError(str(error)) from error

    def encode_now(self, manifest: Mapping[str, Any], texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors float32 [n, T], in the calling thread.

        Raises:
            TextUnavailableError: as ``encode`` does.
        """
        torch.set_num_threads(1)  # of this thread; the others have lists to make
        try:
            encoder = self._encoder_for(manifest)
            return encoder.encode(texts)
        except InputError as error:
            raise TextUnavailableError(str(error)) from error

    def _encoder_for(self, manifest: Mapping[str, Any]) -> TextEncoder:
        config = manifest.get("config", {}).get("text", {})
        if self._encoder is None or config != self._config:
            encoder = encoder_of_bundle(manifest, self._model)
            encoder.encode([""])  # which loads the model, and gets it going
            self._encoder, self._config = encoder, config
        return self._encoder

    def close(self) -> None:
        """End the thread once what it does is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _length(text: str) -> int:
    """Characters, about as many as count: encoders cut long texts off."""
    return min(max(len(text), _FEWEST_CHARACTERS), _MOST_CHARACTERS)


def check_texts(manifest: Mapping[str, Any]) -> None:
    """Raise InputError when a bundle has no text encoder: then no text can ever be encoded."""
    if fingerprint_of(manifest) is None:
        raise InputError(
            "a text encoder in the bundle, which queries and new items need",
            "none",
            "serve a bundle that was trained with one",
        )


def check_queries(manifest: Mapping[str, Any]) -> None:
    """Raise InputError when a bundle has no text model that could read a query."""
    check_texts(manifest)
    check_has_text(manifest)
