"""How fast a bundle is served, against the least that a FastAPI endpoint can do.

    python benchmarks/serving.py --bundle checkpoints/latest

Starts (a) a bare endpoint in one process that returns constants through a pydantic model, (b) the
server without and (c) with its cache, (d) without it in one worker, (e) without an event store, and
drives them in turns with wrk over random users. Figures are medians over the turns, ratios those of
the same turn. Needs wrk (Debian: apt install wrk).
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import statistics
import sys
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.harness import plain_table, present
from benchmarks.runs import ROOT, counted, machine
from benchmarks.servers import drive, need_wrk, serving
from recsys.api.cores import default_workers
from recsys.artifact import Artifact, load_artifact
from recsys.errors import InputError
from recsys.recommender import Recommender
from recsys.request import Request

BARE, UNCACHED, CACHED = "bare endpoint", "cache off", "cache on"
ONE_WORKER = "cache off, 1 worker"
NO_STORE = "cache off, no event store"
SERVERS = (BARE, UNCACHED, NO_STORE, ONE_WORKER, CACHED)
CONNECTIONS = (1, 16, 64)
SECONDS_TO_WAKE = 2
STEPS = ("encode", "search", "rerank", "rules")
NUM_COMPARED = 10
"""Length of the lists that are compared with PyTorch's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--bundle", type=Path, default=ROOT / "checkpoints" / "latest")
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
        content = measure(arguments)
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    present("Serving", [speed_table(content), budget_table(content)], content, arguments.output)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start the servers, drive them in turns, and read where the time went.

    Raises:
        InputError: when wrk or the bundle is missing, or a server does not start.
    """
    need_wrk()
    artifact = load_artifact(arguments.bundle)
    users = ",".join(map(str, artifact.users.ids.tolist()))
    own = ["serve.py", f"bundle={arguments.bundle}", "log_level=warning", *arguments.overrides]
    commands = {
        BARE: ["benchmarks/bare_app.py", "{port}"],
        UNCACHED: [*own, "cache.enabled=false", "port={port}"],
        CACHED: [*own, "cache.enabled=true", "port={port}"],
        NO_STORE: [*own, "cache.enabled=false", "store.enabled=false", "port={port}"],
        ONE_WORKER: [*own, "cache.enabled=false", "workers=1", "port={port}"],
    }
    ready = {BARE: "/recommend?user_id=1"}
    drives: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with ExitStack() as stack, Progress(*columns, TimeElapsedColumn()) as progress:
        urls = {
            name: stack.enter_context(serving(command, ready.get(name, "/health/ready"))).url
            for name, command in commands.items()
        }
        for url in urls.values():  # warm: caches filled, code paths compiled
            drive(url, users, 16, arguments.warm_up)
        before = read_metrics(urls[UNCACHED])
        task = progress.add_task("", total=arguments.turns * len(CONNECTIONS) * len(urls))
        for _ in range(arguments.turns):
            for connections in CONNECTIONS:
                for name, url in urls.items():
                    progress.update(task, description=f"{name}, {connections} connections")
                    # Servers that have been idle have lost their place in the processor's caches.
                    drive(url, users, connections, SECONDS_TO_WAKE)
                    figures = drive(url, users, connections, arguments.seconds)
                    drives.append({"server": name, "connections": connections, **figures})
                    progress.advance(task)
        after = read_metrics(urls[UNCACHED])
    served = f"{counted(default_workers('auto', None), 'worker')} where not said otherwise"
    same = f"{same_lists(artifact):.1%} get the same {NUM_COMPARED} items in the same order"
    return {
        "protocol": f"{artifact.version}: {len(artifact.users):,} users, {len(artifact.items):,} "
        f"items, {artifact.num_candidates} candidates re-ranked; random users, top_k=10; {served}. "
        f"Of all users, {same} from PyTorch in 32 bits.",
        "machine": machine(("torch", "onnxruntime", "fastapi", "uvicorn")),
        "overrides": list(arguments.overrides),
        "turns": arguments.turns,
        "seconds": arguments.seconds,
        "drives": drives,
        "budget_ms": budget(before, after),
    }


def same_lists(artifact: Artifact) -> float:
    """The share of users who get the same lists from the served form and from PyTorch.

    Raises:
        InputError: when there is no stage 2.
    """
    if artifact.stage2 is None:
        raise InputError("a bundle with both stages", "one without stage 2", "train stage=all")
    eager = replace(artifact, stage2=replace(artifact.stage2, graph=None))
    requests = [Request(NUM_COMPARED, user_id=user) for user in artifact.users.ids.tolist()]
    both = (Recommender(one).recommend(requests) for one in (artifact, eager))
    same = [one.item_ids == other.item_ids for one, other in zip(*both, strict=True)]
    return float(sum(same) / len(same))


def read_metrics(url: str) -> dict[str, float]:
    """All samples, by name and labels."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples}


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


def speed_table(content: Mapping[str, Any]) -> Table:
    """A row per server and number of connections."""
    turns = counted(content["turns"], "turn")
    table = plain_table(
        f"medians of {turns} of {content['seconds']} s", "ratios to the bare endpoint, same turn"
    )
    table.add_column("server")
    for header in ("connections", "RPS", "ratio", "p50 ms", "p95 ms", "p99 ms", "ratio", "not 2xx"):
        table.add_column(header, justify="right")
    for connections in CONNECTIONS:
        drives = [one for one in content["drives"] if one["connections"] == connections]
        bare = [one for one in drives if one["server"] == BARE]
        for server in SERVERS:
            own = [one for one in drives if one["server"] == server]

            def median(key: str, own: list[dict[str, Any]] = own) -> float:
                return float(statistics.median(one[key] for one in own))

            def ratio(
                key: str,
                own: list[dict[str, Any]] = own,
                bare: list[dict[str, Any]] = bare,
            ) -> float:
                pairs = zip(own, bare, strict=True)
                return float(statistics.median(one[key] / other[key] for one, other in pairs))

            table.add_row(
                server,
                str(connections),
                f"{median('rps'):,.0f}",
                f"{ratio('rps'):.0%}",
                *(f"{median(key):.1f}" for key in ("p50", "p95", "p99")),
                f"{ratio('p99'):.1f}",
                str(sum(one["bad"] for one in own)),
            )
    return table


def budget_table(content: Mapping[str, Any]) -> Table:
    """Where a request's time goes."""
    table = plain_table(
        "where the time of a request goes, cache off",
        "means in milliseconds; work is that of a batch, divided among its requests",
    )
    table.add_column("step")
    table.add_column("as the request sees it", justify="right")
    table.add_column("work", justify="right")
    waits, work = content["budget_ms"]["waits"], content["budget_ms"]["work"]
    for step, value in waits.items():
        table.add_row(step, f"{value:.2f}", f"{work[step]:.3f}" if step in work else "")
    return table


if __name__ == "__main__":
    main()
