"""The loop by its command: a shop's log, events that come in, a challenger that wins or not."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.artifact import load_artifact
from recsys.data import sample
from recsys.events.store import EventStore
from recsys.events.types import Event
from recsys.refresh.cycle import held_out_share

ROOT = Path(__file__).parents[2]
QUICK = "experiment=quick"
WORSE = [
    *("retrieval.towers.linear.objective.l2=1e11", "retrieval.epochs=1", "reranking.epochs=1"),
    "retrieval.towers.content.objective.learning_rate=1e-7",
]
SHARE_OF_THE_LOG = 0.75


def run(*command: str, cache: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "RECSYS_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """The sample, with everybody's events spread over all of its time."""
    events = sample.load(ROOT / "data" / "sample").interactions
    times = np.random.default_rng(0).permutation(events["timestamp"].to_numpy())
    return events.assign(timestamp=times).sort_values("timestamp", ignore_index=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def shop(rows: pd.DataFrame, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a champion of the first rows, and a store with the others."""
    folder = tmp_path_factory.mktemp("shop")
    cut = int(SHARE_OF_THE_LOG * len(rows))
    rows[:cut].to_csv(folder / "events.csv", index=False)
    items = sample.load(ROOT / "data" / "sample").items
    items.to_csv(folder / "items.csv", index=False)
    tables = [f"data.interactions={folder}/events.csv", f"data.items={folder}/items.csv"]
    trained = ["data=files", "data.name=shop", *tables, QUICK, f"output_dir={folder}/bundles"]
    done = run("train.py", *trained, cache=cache)
    assert done.returncode == 0, done.stderr
    asyncio.run(stored(folder / "bundles" / "shop.events.db", rows[cut:]))
    return folder / "bundles"


async def stored(path: Path, rows: pd.DataFrame) -> None:
    store = await EventStore.open(
        f"sqlite+aiosqlite:///{path}", holds_integer_users=True, holds_integer_items=True
    )
    events = [
        Event(f"e{number}", row.user_id, row.item_id, "rating", row.rating, row.timestamp)
        for number, row in enumerate(rows.itertuples())
    ]
    for start in range(0, len(events), 500):
        await store.append(events[start : start + 500])
    await store.close()


def refreshed(shop: Path, *overrides: str, cache: Path) -> "subprocess.CompletedProcess[str]":
    command = ("-m", "recsys.refresh", "--bundle", f"{shop}/latest", QUICK, *overrides)
    return run(*command, cache=cache)


def last_line(shop: Path) -> dict:
    return json.loads((shop / "refresh.jsonl").read_text().splitlines()[-1])


@pytest.mark.slow
def test_a_worse_challenger_is_refused_and_the_champion_stays(shop: Path, cache: Path) -> None:
    champion = (shop / "latest").resolve()
    done = refreshed(shop, *WORSE, cache=cache)
    assert done.returncode == 3, done.stderr
    assert (shop / "latest").resolve() == champion
    line = last_line(shop)
    assert not line["promoted"]
    assert line["minus_champion"]["ndcg@10"]["high"] < 0
    assert "is worse, with its whole interval" in " ".join(line["reasons"])
    assert f"served is still {line['champion']}" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [4, 12])
def test_killed_at_any_moment_it_leaves_the_champion(shop: Path, cache: Path, seconds: int) -> None:
    champion = (shop / "latest").resolve()
    command = [sys.executable, "-m", "recsys.refresh", "--bundle", f"{shop}/latest", QUICK]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "RECSYS_CACHE": str(cache)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (shop / "latest").resolve() == champion
    load_artifact(shop / "latest")


@pytest.mark.slow
def test_interrupted_while_it_trains_it_ends_in_order(shop: Path, cache: Path) -> None:
    champion, known = (shop / "latest").resolve(), set(shop.glob("logs/*"))
    process = subprocess.Popen(
        [sys.executable, "-m", "recsys.refresh", "--bundle", f"{shop}/latest", QUICK],
        cwd=ROOT,
        env={**os.environ, "RECSYS_CACHE": str(cache)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if any((run / "fit" / "search").exists() for run in set(shop.glob("logs/*")) - known):
            break
        time.sleep(0.05)
    assert process.poll() is None, "finished before it could be interrupted"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert told.splitlines()[-1] == (
        f"interrupted: served is {champion.name}, no challenger is kept; try again by: "
        f"python -m recsys.refresh --bundle {shop}/latest {QUICK}"
    )
    assert "resume=true" not in told
    assert (shop / "latest").resolve() == champion
    assert not (shop / ".refresh").exists()


@pytest.mark.slow
def test_a_challenger_that_is_not_worse_is_served_and_knows_all_that_came(
    shop: Path, rows: pd.DataFrame, cache: Path
) -> None:
    champion = (shop / "latest").resolve()
    done = refreshed(shop, cache=cache)
    assert done.returncode == 0, done.stderr
    served = load_artifact(shop / "latest")
    assert (shop / "latest").resolve() != champion
    assert last_line(shop)["promoted"]
    assert served.version == last_line(shop)["challenger"]
    pairs = zip(
        served.users.decode(served.histories.user_idx),
        served.items.decode(served.histories.item_idx),
        strict=True,
    )
    assert set(pairs) == set(zip(rows["user_id"], rows["item_id"], strict=True))
    assert not (shop / ".refresh").exists()
    # Nothing has come since.
    done = refreshed(shop, cache=cache)
    assert done.returncode == 3, done.stderr
    assert "0 users have new events to compare on, and 50 must" in done.stderr


def test_a_second_turn_at_once_is_refused(untrained_bundle: Path, tmp_path: Path) -> None:
    from recsys.core.locks import Lock

    lock = Lock(untrained_bundle.parent / ".refresh.lock")
    done = run("-m", "recsys.refresh", "--bundle", str(untrained_bundle), cache=tmp_path)
    lock.release()
    assert done.returncode == 2
    assert "error: expected no other refresh of" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_compared_on_is_the_newest_share_of_what_is_new(untrained_bundle: Path) -> None:
    champion = load_artifact(untrained_bundle)
    log = champion.histories
    old = pd.DataFrame(
        {
            "user_id": champion.users.decode(log.user_idx),
            "item_id": champion.items.decode(log.item_idx),
            "timestamp": log.timestamps,
        }
    )
    end = int(log.timestamps.max())
    new = pd.DataFrame(
        {
            "user_id": [f"new {n}" for n in range(10)],
            "item_id": champion.items.decode(np.ones(10, np.int64)),
            "timestamp": end + 1 + np.arange(10),
        }
    ).astype({"user_id": object})
    rows = pd.concat([old.astype({"user_id": object}), new], ignore_index=True)
    share, users = held_out_share(rows, champion, 0.3)
    assert share == pytest.approx(3 / len(rows))
    assert users == 3
    assert held_out_share(old, champion, 0.3) == (0.0, 0)
