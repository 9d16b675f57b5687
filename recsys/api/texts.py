"""Text vectors while serving: of new items, and of what people say they want."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.text.encoder import TextEncoder
from recsys.text.from_config import encoder_from_config

log = logging.getLogger(__name__)


class TextUnavailableError(Exception):
    """Texts cannot be turned into vectors that fit the served model."""


@dataclass(eq=False)
class _Job:
    manifest: Mapping[str, Any]
    text: str
    future: asyncio.Future[NDArray[np.float32]]


class Texts:
    """Encodes texts as a bundle's were, in a thread of its own.

    The model is loaded when the first text comes, which takes seconds: most servers never need it.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="texts")
        self._encoder: TextEncoder | None = None
        self._config: Mapping[str, Any] | None = None
        self._waiting: list[_Job] = []
        self._encoding: asyncio.Task[None] | None = None

    async def encode(self, manifest: Mapping[str, Any], text: str) -> NDArray[np.float32]:
        """The vector float32 [T] of a text; what is asked at the same time is encoded together.

        Args:
            manifest: of the bundle whose vectors it is to be compared with.

        Raises:
            TextUnavailableError: when there is no such encoder here.
        """
        job = _Job(manifest, text, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        if self._encoding is None or self._encoding.done():
            self._encoding = asyncio.create_task(self._encode_all())
        return await job.future

    async def _encode_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            # After a reload, texts for two bundles may wait side by side.
            manifest = self._waiting[0].manifest
            jobs = [job for job in self._waiting if job.manifest is manifest]
            self._waiting = [job for job in self._waiting if job.manifest is not manifest]
            try:
                vectors = await loop.run_in_executor(
                    self._thread, self.encode_now, manifest, [job.text for job in jobs]
                )
            except Exception as error:
                if not isinstance(error, TextUnavailableError):
                    log.exception("texts could not be encoded")
                    error = TextUnavailableError(f"texts could not be encoded: {error!r}")
                for job in jobs:
                    if not job.future.done():
                        job.future.set_exception(error)
            else:
                for job, vector in zip(jobs, vectors, strict=True):
                    if not job.future.done():
                        job.future.set_result(vector)

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
            encoder = encoder_from_config(config)
            expected, found = fingerprint_of(manifest), encoder.fingerprint
            if found != expected:
                raise InputError(
                    f"the text model that the bundle was trained with ({expected})",
                    f"another one ({found})",
                    "put it where it was in training, or train again with the present one",
                )
            self._encoder, self._config = encoder, config
        return self._encoder

    def close(self) -> None:
        """End the thread once what it does is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def fingerprint_of(manifest: Mapping[str, Any]) -> str | None:
    """Of the encoder of a bundle's text vectors."""
    found: str | None = manifest.get("text", {}).get("fingerprint")
    return found


def check_texts(manifest: Mapping[str, Any]) -> None:
    """Raise InputError when a bundle has no text encoder: then no text can ever be encoded."""
    if fingerprint_of(manifest) is None:
        raise InputError(
            "a text encoder in the bundle, which queries and new items need",
            "none",
            "serve a bundle that was trained with one",
        )
