"""How many threads the numeric libraries use, and that those which wait do not keep cores busy."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from recsys.core.cores import available_cores
from recsys.errors import InputError

MAX_THREADS = 16
"""By default: beyond, threads wait for each other and for memory more than they compute."""
SMALL_CATALOG = 5_000
"""Items: training and scoring up to so many are too small steps to be shared out. On MovieLens-100K
a second thread takes as much of a core again and saves 6% of the time."""

_USERS_CHOICE = os.environ.get("OMP_NUM_THREADS", "")
# What waits for others sleeps. By default it spins, so that on a busy machine threads keep the very
# cores busy that those which they wait for need.
WAITING = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "KMP_BLOCKTIME": "0",
    "OPENBLAS_THREAD_TIMEOUT": "4",
}
"""Variables that ``sleep_while_waiting`` sets where they are not set."""


def sleep_while_waiting() -> None:
    """Let threads of OpenMP and OpenBLAS sleep while they wait; what the user has set holds.

    To be called before the first of the libraries is loaded, which is when they look.
    """
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)


def chosen_threads(wanted: object, num_items: int | None, users_choice: str = _USERS_CHOICE) -> int:
    """``wanted``, or else what the user has set ``OMP_NUM_THREADS`` to, or else what pays.

    Args:
        wanted: a config's ``threads``; None leaves it to the rest. num_items: of the catalogue;
            None for a language model, whose steps are large whatever it reads.

    Raises:
        InputError: when it is no positive number.
    """
    if wanted is None:
        first = users_choice.split(",")[0].strip()
        if first.isdecimal() and int(first) > 0:
            return int(first)
        is_small = num_items is not None and num_items <= SMALL_CATALOG
        return 1 if is_small else min(available_cores(), MAX_THREADS)
    if type(wanted) is not int or not 1 <= wanted <= 4096:
        raise InputError("threads in 1..4096, or null", repr(wanted), "set threads=1")
    return wanted


@contextmanager
def threads_kept() -> Iterator[None]:
    """Let the numeric libraries that are loaded use as many threads afterwards as before."""
    import faiss
    import torch
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    libraries = ThreadpoolController().lib_controllers
    before = [library.num_threads for library in libraries]
    before_torch, before_faiss = torch.get_num_threads(), faiss.omp_get_max_threads()
    try:
        yield
    finally:
        for library, number in zip(libraries, before, strict=True):
            library.set_num_threads(number)
        torch.set_num_threads(before_torch)
        faiss.omp_set_num_threads(before_faiss)


@contextmanager
def threads_used(number: int) -> Iterator[None]:
    """As ``use_threads``, until the end of the block."""
    with threads_kept():
        use_threads(number)
        yield


def use_threads(number: int) -> None:
    """Let each of the numeric libraries that are loaded use so many threads."""
    import faiss
    import torch
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=number)
    torch.set_num_threads(number)
    faiss.omp_set_num_threads(number)
