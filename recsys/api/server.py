"""Runs the HTTP application under uvicorn."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import faiss
import torch
import uvicorn
from fastapi import FastAPI

from recsys.api.app import create_app
from recsys.api.connections import SECONDS_KEPT, BoundedProtocol
from recsys.api.http_server import HttpServer
from recsys.api.keys import read_keys
from recsys.api.listener import BACKLOG, SECONDS_TO_FINISH, announce, listen
from recsys.api.live_state import check_store
from recsys.api.logs import check_level, log_config
from recsys.api.models import ModelStore
from recsys.api.options import DEFAULT_OPTIONS, ServingOptions
from recsys.device import resolve_device


def serve(
    bundle: Path,
    *,
    host: str,
    port: int,
    device: str,
    log_level: str,
    options: ServingOptions = DEFAULT_OPTIONS,
    api_keys: Path | None = None,
) -> None:
    """Load the bundle, then listen, until interrupted; requests under way are answered first.

    The bundle comes first so that nobody is sent to a server that cannot answer.

    Args:
        api_keys: a file as ``recsys.api.keys.read_keys`` reads it; None for no keys.

    Raises:
        InputError: on a bundle, device, address, log level or file of keys that will not do.
    """
    check_level(log_level)
    digests = read_keys(api_keys)
    models = load(bundle, device, options)
    with listen(host, port) as listener:
        announce(models.current.model_version, models.device, listener)
        app = create_app(models, options, digests)
        HttpServer(configured(app, log_level)).run(sockets=[listener])


def load(
    bundle: Path, device: str, options: ServingOptions, first: Path | None = None
) -> ModelStore:
    """The models of a process that serves, which is set up for them.

    Args:
        bundle, first: see ``ModelStore``.

    Raises:
        InputError: on a bundle, device or event store that will not do.
    """
    device = resolve_device(device)
    # A batch uses one core: on several, it would compete with the other batches.
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    models = ModelStore(bundle, device, first, options.text_model)
    if options.store_url is not None:
        asyncio.run(check_store(options.store_url, models, options.store_timeout_s))
    # What is loaded stays: the collector need not look through it again and again, which takes
    # longer than a batch.
    gc.collect()
    gc.freeze()
    return models


def configured(app: FastAPI, log_level: str, **more: Any) -> uvicorn.Config:
    """How uvicorn runs the application."""
    return uvicorn.Config(
        app,
        log_config=log_config(log_level),
        access_log=False,  # recsys.api.middleware.Envelope says more
        http=BoundedProtocol,
        ws="none",  # nothing here speaks it, and it would not be bounded
        timeout_keep_alive=SECONDS_KEPT,
        # Who asks is judged by the connection: anybody can write X-Forwarded-For.
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
        **more,
    )
