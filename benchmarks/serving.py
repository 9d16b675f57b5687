"""How fast bundles are served, cold and warm, against the least that a FastAPI endpoint can do.

    python benchmarks/serving.py --bundle checkpoints/latest

Of the bundle, and of untrained ones of other sizes (``--sizes``), it starts (a) a bare endpoint in
one process that returns constants through a pydantic model, (b) the server cold, with all memory of
users off, and each user asked for once before any comes again, and (c) warm, by the defaults, with
users who have been asked for before; of the bundle also, cold, (d) without an event store and (e)
in one worker. It drives them in turns with wrk. Figures are medians over the turns, ratios those of
the same turn; CPU time is that of all processes of a server. Needs wrk (Debian: apt install wrk).
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.harness import present
from benchmarks.runs import ROOT, counted, machine
from benchmarks.servers import Server, drive, need_wrk, serving, write_users
from benchmarks.serving_tables import (
    BARE,
    COLD,
    COLD_NO_STORE,
    COLD_ONE_WORKER,
    CONNECTIONS,
    STEPS,
    WARM,
    tables,
)
from benchmarks.synthetic_bundle import Size, write_bundle
from recsys.api.cores import default_workers
from recsys.artifact import Artifact, load_artifact
from recsys.errors import InputError
from recsys.recommender import Recommender
from recsys.request import Request

ALL_SERVERS = (BARE, COLD, COLD_NO_STORE, COLD_ONE_WORKER, WARM)
MAIN_SERVERS = (BARE, COLD, WARM)
SIZES = "6000x1000,60000x100000"
SECONDS_TO_WAKE = 2
LIVE_EVENTS_COLD = 100
"""Of as many users what the store said is kept: more than ask at a time, fewer than there are."""
WARM_USERS = 300
NUM_COMPARED, USERS_COMPARED = 10, 200
LISTS_AT_A_TIME, USERS_TIMED = (1, 16), 800
"""Length of the lists that are compared with PyTorch's, and for how many users they are."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--bundle", type=Path, default=ROOT / "checkpoints" / "latest")
    parser.add_argument(
        "--sizes",
        default=SIZES,
        help=f"ITEMSxUSERS of untrained bundles, a comma list, may be empty (default {SIZES})",
    )
    parser.add_argument("--seconds", type=int, default=10, help="of each drive (default 10)")
    parser.add_argument("--turns", type=int, default=3, help="to take medians of (default 3)")
    parser.add_argument(
        "--warm-up", type=int, default=15, help="seconds before, uncounted (default 15)"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/serving.json")
    parser.add_argument("overrides", nargs="*", help="of configs/serve.yaml, e.g. max_batch=16")
    arguments = parser.parse_args()
    if min(arguments.seconds, arguments.turns, arguments.warm_up) < 1:
        parser.error("--seconds, --turns and --warm-up must be at least 1")
    try:
        arguments.sizes = [Size.parse(text) for text in arguments.sizes.split(",") if text]
    except ValueError as error:
        parser.error(f"--sizes must be like {SIZES}: {error}")
    try:
        content = measure(arguments)
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    present("Serving", tables(content), content, arguments.output)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure each bundle: start the servers, drive them in turns, read where the time went.

    Raises:
        InputError: when wrk or the bundle is missing, or a server does not start.
    """
    need_wrk()
    measured = [measure_bundle(arguments.bundle, ALL_SERVERS, arguments)]
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            bundle = write_bundle(size, Path(folder))
            measured.append(measure_bundle(bundle, MAIN_SERVERS, arguments))
    workers = counted(default_workers("auto", None), "worker")
    return {
        "protocol": f"GET /recommend, top_k=10, beside a bare endpoint of one process; {workers} "
        f"where not said otherwise. Cold: `{' '.join(cold_options())}`, each user once before any "
        "comes again, so that neither lists nor what the event store said of a user are kept from "
        "one request to the next; only what the processor's and the system's caches hold is. "
        f"Warm: the defaults, {WARM_USERS:,} users at random (or all, where there are fewer) who "
        "have been asked for before. Bundles called synthetic are untrained; widths are those of "
        "the configuration.",
        "machine": machine(("torch", "onnxruntime", "fastapi", "uvicorn")),
        "overrides": list(arguments.overrides),
        "turns": arguments.turns,
        "seconds": arguments.seconds,
        "bundles": measured,
    }


def cold_options() -> list[str]:
    """Of serve.py: nothing is remembered of users."""
    return ["cache.enabled=false", f"store.live_events={LIVE_EVENTS_COLD}"]


def commands(bundle: Path, store: Path, overrides: Sequence[str]) -> dict[str, list[str]]:
    """For Python, by server. store: file of the event store, which is not the user's own."""
    url = f"store.url='sqlite+aiosqlite:///{store}'"
    own = ["serve.py", f"bundle={bundle}", url, "log_level=warning", *overrides]
    cold = [*own, *cold_options(), "port={port}"]
    return {
        BARE: ["benchmarks/bare_app.py", "{port}"],
        COLD: cold,
        COLD_NO_STORE: [*cold, "store.enabled=false"],
        COLD_ONE_WORKER: [*cold, "workers=1"],
        WARM: [*own, "cache.enabled=true", "port={port}"],
    }


@dataclass
class Caller:
    """Asks one server. start: which user is next; None for any of them, each time."""

    server: Server
    users: Path
    start: int | None

    def drive(self, connections: int, seconds: int) -> dict[str, Any]:
        """As of ``servers.drive``."""
        found = drive(self.server, self.users, connections, seconds, self.start)
        if self.start is not None:
            self.start += found["asked"]
        return found


def measure_bundle(
    bundle: Path, names: Sequence[str], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Drive some of the servers in turns.

    Raises:
        InputError: as of ``measure``.
    """
    artifact = load_artifact(bundle)
    same = same_lists(artifact)
    ids = np.random.default_rng(0).permutation(artifact.users.ids).tolist()
    about = {
        "version": artifact.version,
        "items": len(artifact.items),
        "users": len(ids),
        "events": len(artifact.histories),
        "candidates": artifact.num_candidates,
        "same_lists": same,
        "stage2_ms": stage2_ms(artifact),
    }
    del artifact  # servers need the memory
    drives: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with ExitStack() as stack, Progress(*columns, TimeElapsedColumn()) as progress:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        everyone = write_users(ids, folder, "everyone")
        some = write_users(ids[:WARM_USERS], folder, "some")
        to_start = commands(bundle.absolute(), folder / "events.db", arguments.overrides)
        callers = {}
        for name in names:
            path = f"/recommend?user_id={ids[0]}" if name == BARE else "/health/ready"
            server = stack.enter_context(serving(to_start[name], path))
            is_warm = name == WARM
            callers[name] = Caller(server, some if is_warm else everyone, None if is_warm else 0)
        for caller in callers.values():  # caches filled, code paths compiled
            caller.drive(16, arguments.warm_up)
        before = {name: read_metrics(callers[name].server.url) for name in (COLD, WARM)}
        task = progress.add_task("", total=arguments.turns * len(CONNECTIONS) * len(callers))
        for _ in range(arguments.turns):
            for connections in CONNECTIONS:
                for name, caller in callers.items():
                    progress.update(task, description=f"{name}, {connections} connections")
                    # Servers that have been idle have lost their place in the processor's caches.
                    caller.drive(connections, SECONDS_TO_WAKE)
                    figures = caller.drive(connections, arguments.seconds)
                    drives.append({"server": name, "connections": connections, **figures})
                    progress.advance(task)
        after = {name: read_metrics(callers[name].server.url) for name in (COLD, WARM)}
        cold = [caller.start or 0 for name, caller in callers.items() if name not in (BARE, WARM)]
    return {
        **about,
        "drives": drives,
        "passes": max(cold) / len(ids),
        "warm_hits": share_of_hits(before[WARM], after[WARM]),
        "budget_ms": budget(before[COLD], after[COLD]),
    }


def same_lists(artifact: Artifact) -> float:
    """The share of users who get the same lists from the served form and from PyTorch.

    Raises:
        InputError: when there is no stage 2.
    """
    if artifact.stage2 is None:
        raise InputError("a bundle with both stages", "one without stage 2", "train stage=all")
    eager = replace(artifact, stage2=replace(artifact.stage2, graph=None))
    users = artifact.users.ids[:USERS_COMPARED].tolist()
    requests = [Request(NUM_COMPARED, user_id=user) for user in users]
    both = (Recommender(one, stage2=True).recommend(requests) for one in (artifact, eager))
    same = [one.item_ids == other.item_ids for one, other in zip(*both, strict=True)]
    return float(sum(same) / len(same))


def stage2_ms(artifact: Artifact) -> dict[str, float]:
    """CPU milliseconds of stage 2 by list, in one thread, by lists at a time; each user once."""
    recommender, threads = Recommender(artifact, stage2=True), torch.get_num_threads()
    torch.set_num_threads(1)
    users = np.random.default_rng(1).permutation(artifact.users.ids).tolist()[:USERS_TIMED]
    requests = [Request(NUM_COMPARED, user_id=user) for user in users]
    found = {}
    for size in LISTS_AT_A_TIME:
        starts = range(0, len(requests) - size + 1, size)
        retrieved = [recommender.retrieve(requests[start : start + size]) for start in starts]
        recommender.rerank(retrieved[0])  # code paths compiled
        started = time.thread_time()
        for batch in retrieved:
            recommender.rerank(batch)
        found[str(size)] = 1e3 * (time.thread_time() - started) / (size * len(retrieved))
    torch.set_num_threads(threads)
    return found


def read_metrics(url: str) -> dict[str, float]:
    """All samples, by name and labels."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples}


def share_of_hits(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Of the look-ups of the cache between two readings, those that found an answer."""
    hits, misses = (
        after.get(key, 0) - before.get(key, 0)
        for key in (
            f'recsys_cache_requests_total{{result="{result}"}}' for result in ("hit", "miss")
        )
    )
    return hits / max(hits + misses, 1)


def budget(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Any]:
    """Milliseconds of a mean request between two readings.

    Returns:
        ``waits``: by part of the request, how long it takes as the request sees it, for which its
        whole batch has to be made. ``work``: by step, the share of it that is the request's own.
    """
    route = '{route="/recommend"}'
    number = after[f"recsys_request_seconds_count{route}"]
    number -= before.get(f"recsys_request_seconds_count{route}", 0)

    def mean(name: str) -> float:
        return 1e3 * (after.get(name, 0) - before.get(name, 0)) / max(number, 1)

    waits = {"queue": mean("recsys_queue_seconds_sum")}
    for step in STEPS:
        waits[step] = mean(f'recsys_request_step_seconds_total{{step="{step}"}}')
    total = mean(f"recsys_request_seconds_sum{route}")
    work = {step: mean(f'recsys_step_seconds_sum{{step="{step}"}}') for step in STEPS}
    return {
        "waits": {"HTTP": total - sum(waits.values()), **waits, "all": total},
        "work": {**work, "all": sum(work.values())},
    }


if __name__ == "__main__":
    main()
