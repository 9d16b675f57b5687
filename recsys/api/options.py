"""How the server is to behave, as numbers."""

import os
from dataclasses import dataclass

from recsys.errors import InputError


@dataclass(frozen=True)
class ServingOptions:
    """deadline_ms: for an answer, unless a request says otherwise.
    max_batch: requests run at once. max_queue: requests that may wait for it; more are refused.
    cache_mb: memory for answers; 0 for no cache.
    history_cache_mb: memory for what stored histories tell of all items; 0 keeps nothing.
    threads: batches run at the same time; None for the CPU cores over the workers, one with a GPU.
    workers: processes that answer.
    rate_limit: of one client, such as ``20/second``; None for none.

    Raises:
        InputError: when one is out of range.
    """

    deadline_ms: float = 1000.0
    max_batch: int = 32
    max_queue: int = 512
    cache_mb: float = 64.0
    history_cache_mb: float = 256.0
    threads: int | None = None
    workers: int = 1
    rate_limit: str | None = None

    def batches_at_once(self, device: str) -> int:
        """``threads``, or as many as there are cores for."""
        if self.threads is not None:
            return self.threads
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return 1 if device == "cuda" else max(1, (cores or 1) // self.workers)

    def __post_init__(self) -> None:
        for name, lowest in (
            ("deadline_ms", 1),
            ("max_batch", 1),
            ("max_queue", 1),
            ("cache_mb", 0),
            ("history_cache_mb", 0),
            ("threads", 1),
            ("workers", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise InputError(f"{name} of at least {lowest}", str(value), f"set {name}={lowest}")


DEFAULT_OPTIONS = ServingOptions()
