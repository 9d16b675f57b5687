"""Runs the HTTP application under uvicorn."""

import gc
import os
import socket
from dataclasses import replace
from pathlib import Path

import faiss
import torch
import uvicorn

from recsys.api.app import create_app
from recsys.api.keys import read_keys
from recsys.api.logs import log_config
from recsys.api.models import ModelStore
from recsys.api.options import DEFAULT_OPTIONS, ServingOptions
from recsys.device import resolve_device
from recsys.errors import InputError

_LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
_SECONDS_TO_FINISH = 10
_MAX_PORT = 65_535


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
    if log_level not in _LOG_LEVELS:
        expected = f"log_level to be one of {', '.join(_LOG_LEVELS)}"
        raise InputError(expected, repr(log_level), "set log_level=info")
    device = resolve_device(device)
    digests = read_keys(api_keys)
    if options.threads is None:
        threads = 1 if device == "cuda" else len(os.sched_getaffinity(0))
        options = replace(options, threads=threads)
    # A batch uses one core: on several, it would compete with the other batches.
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    models = ModelStore(bundle, device, int(options.history_cache_mb * 1e6))
    # What is loaded stays: the collector need not look through it again and again, which takes
    # longer than a batch.
    gc.collect()
    gc.freeze()
    with listen(host, port) as listener:
        name, bound = listener.getsockname()[:2]
        url = f"http://[{name}]:{bound}" if ":" in name else f"http://{name}:{bound}"
        # Flushed, so that a script that waits for this line sees it through a pipe.
        print(
            f"Serving {models.current.model_version} on {device}: {url} (API: {url}/docs)",
            flush=True,
        )
        settings = uvicorn.Config(
            create_app(models, options, digests),
            log_config=log_config(log_level),
            access_log=False,  # recsys.api.middleware.Envelope says more
            timeout_graceful_shutdown=_SECONDS_TO_FINISH,
        )
        uvicorn.Server(settings).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to ``host:port``; port 0 takes any free one.

    Raises:
        InputError: when the port is impossible, or the address taken or not this machine's.
    """
    if not 0 <= port <= _MAX_PORT:
        raise InputError(f"a port in 0..{_MAX_PORT}", str(port), "set port=8000")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"an address to listen on in host={host} port={port}",
            (error.strerror or str(error)).lower(),
            "stop what listens there, or set another port= or host=",
        ) from error
