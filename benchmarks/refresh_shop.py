"""A shop for benchmarks of the loop: a champion of the first rows, a store with the later ones."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.runs import ROOT
from recsys.data import sample
from recsys.errors import InputError
from recsys.events.database import sqlite_url
from recsys.events.store import EventStore
from recsys.events.types import Event

QUICK = "experiment=quick"
SHARE_OF_THE_LOG = 0.75
_EVENTS_AT_ONCE = 500


def sample_rows() -> pd.DataFrame:
    """The bundled sample, with everybody's events spread over all of its time."""
    events = sample.load(ROOT / "data" / "sample").interactions
    times = np.random.default_rng(0).permutation(events["timestamp"].to_numpy())
    return events.assign(timestamp=times).sort_values("timestamp", ignore_index=True)


def open_shop(folder: Path, cache: Path, overrides: Sequence[str] = (QUICK,)) -> Path:
    """Train the champion; returns the folder of bundles, with ``latest`` and ``shop.events.db``.

    Args:
        cache: of text vectors. overrides: of configs/train.yaml.

    Raises:
        InputError: when the training fails.
    """
    rows = sample_rows()
    cut = int(SHARE_OF_THE_LOG * len(rows))
    folder.mkdir(parents=True, exist_ok=True)
    rows[:cut].to_csv(folder / "events.csv", index=False)
    sample.load(ROOT / "data" / "sample").items.to_csv(folder / "items.csv", index=False)
    bundles = folder / "bundles"
    tables = [f"data.interactions={folder}/events.csv", f"data.items={folder}/items.csv"]
    command = ["train.py", "data=files", "data.name=shop", *tables, f"output_dir={bundles}"]
    done = python([*command, *overrides], cache)
    if done.returncode:
        raise InputError("a champion to begin with", done.stderr[-500:], "see above")
    asyncio.run(_store(bundles / "shop.events.db", rows[cut:]))
    return bundles


def refresh_command(bundles: Path, *more: str) -> list[str]:
    """One turn of the loop, for Python."""
    return ["-m", "recsys.refresh", "--bundle", f"{bundles}/latest", *more]


def environment(cache: Path) -> dict[str, str]:
    """Of processes that train."""
    return {**os.environ, "RECSYS_CACHE": str(cache)}


def python(command: Sequence[str], cache: Path) -> "subprocess.CompletedProcess[str]":
    """Run to its end."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(cache),
        capture_output=True,
        text=True,
    )


async def _store(path: Path, rows: pd.DataFrame) -> None:
    store = await EventStore.open(
        sqlite_url(path), holds_integer_users=True, holds_integer_items=True
    )
    columns = (rows[name].tolist() for name in ("user_id", "item_id", "rating", "timestamp"))
    events = [
        Event(f"e{number}", user, item, "rating", rating, time)
        for number, (user, item, rating, time) in enumerate(zip(*columns, strict=True))
    ]
    for start in range(0, len(events), _EVENTS_AT_ONCE):
        await store.append(events[start : start + _EVENTS_AT_ONCE])
    await store.close()
