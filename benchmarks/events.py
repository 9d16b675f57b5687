"""How fast the event store is: events in batches, single events from many callers, reads.

    python benchmarks/events.py
    python benchmarks/events.py --store postgresql+asyncpg://user:password@host/database

Without ``--store`` it makes a SQLite file in the working folder, whose disk counts, and removes it
afterwards. A database that is named is filled with events of users that the benchmark makes up.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.harness import plain_table, present
from benchmarks.runs import ROOT, machine
from recsys.errors import InputError
from recsys.events.store import EventStore
from recsys.events.types import Event, StoreUnavailableError

NUM_USERS = 1_000
NUM_READS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--store", metavar="URL", help="default: a new SQLite file")
    parser.add_argument("--events", type=int, default=20_000, help="default 20,000 of each kind")
    parser.add_argument("--batch", type=int, default=100, help="events per batch (default 100)")
    parser.add_argument("--callers", type=int, default=64, help="at the same time (default 64)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/events.json")
    arguments = parser.parse_args()
    if min(arguments.events, arguments.batch, arguments.callers) < 1:
        parser.error("--events, --batch and --callers must be at least 1")
    try:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            url = arguments.store or f"sqlite+aiosqlite:///{folder}/events.db"
            content = asyncio.run(measure(url, arguments))
    except (InputError, StoreUnavailableError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    present("Event store", [table_of(content)], content, arguments.output)


async def measure(url: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    store = await EventStore.open(
        url, holds_integer_users=False, holds_integer_items=False, timeout_seconds=30
    )
    run = uuid.uuid4().hex
    total, size = arguments.events, arguments.batch
    try:
        batches = [
            [event(run, n) for n in range(start, min(start + size, total))]
            for start in range(0, total, size)
        ]
        started = time.perf_counter()
        for batch in batches:
            await store.append(batch)
        in_batches = total / (time.perf_counter() - started)

        singles = iter([event(run, n) for n in range(total, 2 * total)])
        waits: list[float] = []

        async def caller() -> None:
            for one in singles:
                sent = time.perf_counter()
                await store.append([one])
                waits.append(time.perf_counter() - sent)

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(arguments.callers)))
        one_by_one = total / (time.perf_counter() - started)

        position = await store.head()
        users = [f"{run}-{n}" for n in range(min(64, NUM_USERS))]
        return {
            "protocol": f"{url.split(':')[0]}; {total:,} events in batches of {size}, and as many "
            f"one by one from {arguments.callers} callers; the median of {NUM_READS} reads.",
            "machine": machine(("sqlalchemy", "aiosqlite", "asyncpg")),
            "overrides": [],
            "events_per_second": {"in batches": in_batches, "one by one": one_by_one},
            "milliseconds": {
                "an event one by one": 1000 * statistics.median(waits),
                "changes, when there are none": await median_ms(lambda: store.changes(position)),
                "states of 1 user": await median_ms(lambda: store.user_states(users[:1])),
                f"states of {len(users)} users": await median_ms(lambda: store.user_states(users)),
            },
        }
    finally:
        await store.close()


def event(run: str, number: int) -> Event:
    """Event ``number`` of this run, of one of its users."""
    user_id, item_id = f"{run}-{number % NUM_USERS}", f"i{number * 7919 % 5003}"
    return Event(f"{run}-e{number}", user_id, item_id, "click", None, 1_700_000_000 + number)


async def median_ms(call: Callable[[], Awaitable[Any]]) -> float:
    """Of ``NUM_READS`` calls, one after the other."""
    taken = []
    for _ in range(NUM_READS):
        started = time.perf_counter()
        await call()
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


def table_of(content: dict[str, Any]) -> Table:
    """A row per figure."""
    table = plain_table("Event store", content["protocol"])
    table.add_column("")
    table.add_column("events/s", justify="right")
    table.add_column("ms", justify="right")
    for name, value in content["events_per_second"].items():
        table.add_row(name, f"{value:,.0f}", "")
    for name, value in content["milliseconds"].items():
        table.add_row(name, "", f"{value:.2f}")
    return table


if __name__ == "__main__":
    main()
