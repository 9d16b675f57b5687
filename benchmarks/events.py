"""How fast events are stored, by the store itself and through a server, and read again.

    python benchmarks/events.py --bundle checkpoints/latest
    python benchmarks/events.py --store postgresql+asyncpg://user:password@host/database

Without ``--store`` it makes SQLite files in the working folder, whose disk counts, and removes them
afterwards. A database that is named is filled with events of users that the benchmark makes up, and
is to be one for the ids of the bundle.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from rich.table import Table

from benchmarks.harness import plain_table, present
from benchmarks.runs import ROOT, machine
from benchmarks.servers import serving
from recsys.artifact import load_artifact
from recsys.errors import InputError
from recsys.events.store import EventStore
from recsys.events.types import Event, StoreUnavailableError
from recsys.schema import ExternalId

NUM_USERS = 1_000
NUM_READS = 300
SENDERS = 16
"""Connections through which a server gets its batches."""


class Ids(NamedTuple):
    """What events are made of: a bundle's items, and users that are in no log."""

    users: Sequence[ExternalId]
    items: Sequence[ExternalId]
    run: str

    def event(self, number: int) -> Event:
        """Event ``number`` of this run."""
        user_id = self.users[number % len(self.users)]
        item_id = self.items[number * 7919 % len(self.items)]
        return Event(
            f"{self.run}-e{number}", user_id, item_id, "click", None, 1_700_000_000 + number
        )

    def batches(self, first: int, number: int, size: int) -> list[list[Event]]:
        """Events ``first`` to ``first + number``, in batches."""
        numbers = range(first, first + number)
        return [
            [self.event(one) for one in numbers[start : start + size]]
            for start in range(0, number, size)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--bundle", type=Path, default=ROOT / "checkpoints" / "latest")
    parser.add_argument("--store", metavar="URL", help="default: new SQLite files")
    parser.add_argument("--events", type=int, default=20_000, help="default 20,000 of each kind")
    parser.add_argument("--batch", type=int, default=100, help="events per batch (default 100)")
    parser.add_argument("--callers", type=int, default=64, help="at the same time (default 64)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/events.json")
    arguments = parser.parse_args()
    if min(arguments.events, arguments.batch, arguments.callers) < 1:
        parser.error("--events, --batch and --callers must be at least 1")
    try:
        content = measure(arguments)
    except (InputError, StoreUnavailableError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    present("Event store", [table_of(content)], content, arguments.output)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    ids = ids_of(arguments.bundle)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        urls = [
            arguments.store or f"sqlite+aiosqlite:///{Path(folder).resolve()}/{name}.db"
            for name in ("direct", "served")
        ]
        found = asyncio.run(of_the_store(urls[0], ids, arguments))
        rate = of_a_server(urls[1], ids, arguments)
    found["events_per_second"][f"in batches, through the server from {SENDERS} callers"] = rate
    return {
        "protocol": f"{urls[0].split(':')[0]}; {arguments.events:,} events of each kind, batches "
        f"of {arguments.batch}; the median of {NUM_READS} reads.",
        "machine": machine(("sqlalchemy", "aiosqlite", "asyncpg")),
        "overrides": [],
        **found,
    }


def ids_of(bundle: Path) -> Ids:
    """Ids of the bundle's types."""
    artifact = load_artifact(bundle)
    run = uuid.uuid4().hex
    users: Sequence[ExternalId] = [f"{run}-{n}" for n in range(NUM_USERS)]
    if artifact.users.holds_integers:
        first = 10**12 + int(run[:8], 16) * NUM_USERS
        users = range(first, first + NUM_USERS)
    return Ids(users, artifact.items.decode(np.arange(1, len(artifact.items) + 1)), run)


async def of_the_store(url: str, ids: Ids, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of the store, called in this process."""
    total, callers = arguments.events, arguments.callers
    store = await EventStore.open(
        url,
        holds_integer_users=isinstance(ids.users[0], int),
        holds_integer_items=isinstance(ids.items[0], int),
        timeout_seconds=30,
    )

    async def rate(batches: Sequence[Sequence[Event]], callers: int) -> tuple[float, list[float]]:
        """Events per second from so many callers, and what each call took in seconds."""
        waiting, waits = iter(batches), []

        async def caller() -> None:
            for batch in waiting:
                sent = time.perf_counter()
                await store.append(batch)
                waits.append(time.perf_counter() - sent)

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return sum(map(len, batches)) / (time.perf_counter() - started), waits

    try:
        in_turn, _ = await rate(ids.batches(0, total, arguments.batch), 1)
        together, _ = await rate(ids.batches(total, total, arguments.batch), callers)
        singly, waits = await rate(ids.batches(2 * total, total, 1), callers)
        position = await store.head()
        users = ids.users[:64]
        return {
            "events_per_second": {
                "in batches, from 1 caller": in_turn,
                f"in batches, from {callers} callers": together,
                f"one by one, from {callers} callers": singly,
            },
            "milliseconds": {
                f"one event, among {callers} callers": 1000 * statistics.median(waits),
                "changes, when there are none": await median_ms(lambda: store.changes(position)),
                "states of 1 user": await median_ms(lambda: store.user_states(users[:1])),
                f"states of {len(users)} users": await median_ms(lambda: store.user_states(users)),
            },
        }
    finally:
        await store.close()


def of_a_server(url: str, ids: Ids, arguments: argparse.Namespace) -> float:
    """Events per second that a server acknowledges.

    Raises:
        InputError: when one is refused.
    """
    total = arguments.events
    bodies = iter(
        [
            json.dumps({"events": [vars(one) for one in batch]})
            for batch in ids.batches(3 * total, total, arguments.batch)
        ]
    )

    def sender(address: str) -> None:
        connection = HTTPConnection(address, timeout=60)
        for body in bodies:
            connection.request("POST", "/events", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            told = response.read().decode()
            if response.status != 200:
                raise InputError("events to be acknowledged", told, "try again")
        connection.close()

    options = (f"store.url={url}", "store.timeout_s=30", "log_level=warning")
    command = ["serve.py", f"bundle={arguments.bundle.resolve()}", "port={port}", *options]
    with (
        serving(command, "/health/ready") as server,
        ThreadPoolExecutor(SENDERS) as threads,
    ):
        started = time.perf_counter()
        for one in [threads.submit(sender, urlsplit(server.url).netloc) for _ in range(SENDERS)]:
            one.result()
        return float(total / (time.perf_counter() - started))


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
