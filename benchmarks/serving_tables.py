"""What ``serving.py`` has measured, as tables."""

import statistics
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from benchmarks.harness import plain_table
from benchmarks.runs import counted

BARE, COLD, WARM = "bare endpoint", "cold", "warm"
COLD_NO_STORE, COLD_ONE_WORKER = "cold, no event store", "cold, 1 worker"
CONNECTIONS = (1, 16, 64)
COMPARED_AT = 16
STEPS = ("encode", "search", "rerank", "rules")


def tables(content: Mapping[str, Any]) -> list[Table]:
    """All of a page: what counts first, then each bundle's figures."""
    found = [summary_table(content)]
    for bundle in content["bundles"]:
        found += [speed_table(bundle, content), budget_table(bundle)]
    return found


def median(bundle: Mapping[str, Any], server: str, connections: int, key: str) -> float:
    """Of the turns."""
    return float(statistics.median(one[key] for one in _drives(bundle, server, connections)))


def ratio(bundle: Mapping[str, Any], server: str, connections: int, key: str) -> float:
    """To the bare endpoint in the same turn, the median of the turns."""
    own, bare = (_drives(bundle, name, connections) for name in (server, BARE))
    return float(statistics.median(one[key] / b[key] for one, b in zip(own, bare, strict=True)))


def _drives(bundle: Mapping[str, Any], server: str, connections: int) -> list[dict[str, Any]]:
    return [
        one
        for one in bundle["drives"]
        if one["server"] == server and one["connections"] == connections
    ]


def summary_table(content: Mapping[str, Any]) -> Table:
    """A row per bundle, cold and warm."""
    table = plain_table(
        f"beside the bare endpoint, {COMPARED_AT} connections",
        "CPU is that of all processes of a server by request; ratios are to the bare endpoint in "
        "the same turn",
    )
    for header in ("items", "users"):
        table.add_column(header, justify="right")
    table.add_column("users asked for")
    for header in ("CPU ms", "bare CPU ms", "CPU ratio", "RPS ratio", "p99 ratio"):
        table.add_column(header, justify="right")
    for bundle in content["bundles"]:
        for server in (COLD, WARM):
            table.add_row(
                f"{bundle['items']:,}",
                f"{bundle['users']:,}",
                server,
                f"{median(bundle, server, COMPARED_AT, 'cpu_ms'):.3f}",
                f"{median(bundle, BARE, COMPARED_AT, 'cpu_ms'):.3f}",
                f"{ratio(bundle, server, COMPARED_AT, 'cpu_ms'):.1f}",
                f"{ratio(bundle, server, COMPARED_AT, 'rps'):.0%}",
                f"{ratio(bundle, server, COMPARED_AT, 'p99'):.1f}",
            )
    return table


def speed_table(bundle: Mapping[str, Any], content: Mapping[str, Any]) -> Table:
    """A row per server and number of connections."""
    turns = counted(content["turns"], "turn")
    table = plain_table(
        f"{bundle['items']:,} items, {bundle['users']:,} users: medians of {turns} of "
        f"{content['seconds']} s",
        f"{bundle['version']}: {bundle['events']:,} events, {bundle['candidates']} candidates "
        f"re-ranked; ratios to the bare endpoint, same turn. {_asked(bundle)}. "
        f"{bundle['warm_hits']:.1%} of warm lists from the cache. {bundle['same_lists']:.1%} of "
        "users get the same list from PyTorch in 32 bits.",
    )
    table.add_column("server")
    headers = ("connections", "RPS", "ratio", "p50 ms", "p95 ms", "p99 ms", "ratio")
    for header in (*headers, "CPU ms", "ratio", "not 2xx"):
        table.add_column(header, justify="right")
    servers = list(dict.fromkeys(one["server"] for one in bundle["drives"]))
    for connections in CONNECTIONS:
        for server in servers:
            key = bundle, server, connections
            table.add_row(
                server,
                str(connections),
                f"{median(*key, 'rps'):,.0f}",
                f"{ratio(*key, 'rps'):.0%}",
                *(f"{median(*key, name):.1f}" for name in ("p50", "p95", "p99")),
                f"{ratio(*key, 'p99'):.1f}",
                f"{median(*key, 'cpu_ms'):.3f}",
                f"{ratio(*key, 'cpu_ms'):.1f}",
                str(sum(one["bad"] for one in _drives(*key))),
            )
    return table


def _asked(bundle: Mapping[str, Any]) -> str:
    """How often a cold server was asked for the same user."""
    passes = float(bundle["passes"])
    if passes <= 1:
        return f"Cold, no user was asked for twice ({passes:.0%} of them once)"
    return f"Cold, each user came {passes:.1f} times, all others in between"


def _stage2(bundle: Mapping[str, Any]) -> str:
    """What it costs by list, by lists at a time."""
    return ", ".join(
        f"{value:.2f} ms of CPU a list for {counted(int(size), 'list')} at a time"
        for size, value in bundle["stage2_ms"].items()
    )


def budget_table(bundle: Mapping[str, Any]) -> Table:
    """Where a request's time goes."""
    table = plain_table(
        f"{bundle['items']:,} items, {bundle['users']:,} users: where the time of a request goes, "
        "cold",
        "means in milliseconds; work is that of a batch, divided among its requests. Stage 2 by "
        f"itself, in one thread, each user once: {_stage2(bundle)}",
    )
    table.add_column("step")
    table.add_column("as the request sees it", justify="right")
    table.add_column("work", justify="right")
    waits, work = bundle["budget_ms"]["waits"], bundle["budget_ms"]["work"]
    for step, value in waits.items():
        table.add_row(step, f"{value:.2f}", f"{work[step]:.3f}" if step in work else "")
    return table
