"""The loop by its command: a shop's log, events that come in, a challenger that wins or not."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.refresh_shop import (
    QUICK,
    environment,
    open_shop,
    python,
    refresh_command,
    sample_rows,
)
from recsys.artifact import load_artifact
from recsys.core.locks import Lock
from recsys.export_events import export
from recsys.refresh.cycle import held_out_share
from tests.workers import Server, get, serving

ROOT = Path(__file__).parents[2]
SECONDS_TO_WAIT = 200
NUM_CLIENTS = 4


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def shop(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a champion of the first rows, and a store with the others."""
    return open_shop(tmp_path_factory.mktemp("shop"), cache)


def refreshed(shop: Path, *overrides: str, cache: Path) -> "subprocess.CompletedProcess[str]":
    return python(refresh_command(shop, QUICK, *overrides), cache)


def last_line(shop: Path) -> dict:
    return json.loads((shop / "refresh.jsonl").read_text().splitlines()[-1])


@contextmanager
def load(server: Server, users: list[int]) -> Iterator[list[tuple[int, str]]]:
    """Statuses and versions of what clients are answered within the block, in order of time."""
    answers: list[tuple[int, str]] = []
    stop = threading.Event()

    def ask(number: int) -> None:
        connection = server.connect()
        for user in itertools.cycle(users[number::NUM_CLIENTS]):
            if stop.is_set():
                return
            status, found = get(connection, f"/recommend?user_id={user}&top_k=10")
            answers.append((status, found.get("model_version", "none")))

    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        clients = [pool.submit(ask, number) for number in range(NUM_CLIENTS)]
        try:
            until(lambda: len(answers) > NUM_CLIENTS or any(one.done() for one in clients))
            yield answers
        finally:
            stop.set()
        for one in clients:
            one.result()


@pytest.fixture(scope="module")
def server(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers that serve the champion."""
    with serving(shop / "latest", tmp_path_factory.mktemp("server") / "tmp") as running:
        until(running.serves_with_two)
        yield running


def versions(server: Server) -> set[str]:
    """That the workers serve."""
    each = server.to_each_worker().values()
    return {get(connection, "/health/ready")[1]["model_version"] for connection in each}


def shuffled_log(shop: Path, folder: Path) -> Path:
    """An export of the shop whose items are dealt out anew, but for the newest rows."""
    url = f"sqlite+aiosqlite:///{shop}/shop.events.db"
    rows = pd.read_parquet(export(url, shop / "latest", folder).files["interactions"])
    rows = rows.sort_values("timestamp", kind="stable", ignore_index=True)
    old = int(0.8 * len(rows))
    items = rows["item_id"].to_numpy(copy=True)
    items[:old] = np.random.default_rng(0).permutation(items[:old])
    path = folder / "shuffled.parquet"
    rows.assign(item_id=items).to_parquet(path, index=False)
    return path


@pytest.mark.slow
def test_a_worse_challenger_is_refused_and_the_server_stays_as_it_is(
    shop: Path, server: Server, cache: Path, tmp_path: Path
) -> None:
    champion = (shop / "latest").resolve()
    worse = f"data.interactions={shuffled_log(shop, tmp_path)}"
    done = refreshed(shop, "--server", f"http://{server.address}", worse, cache=cache)
    assert done.returncode == 3, done.stderr
    assert (shop / "latest").resolve() == champion
    line = last_line(shop)
    assert not line["promoted"]
    assert line["minus_champion"]["ndcg@10"]["high"] < 0
    assert "is worse, with its whole interval" in " ".join(line["reasons"])
    assert f"served is still {line['champion']}" in done.stderr
    assert versions(server) == {line["champion"]}


def until(holds) -> None:
    end = time.monotonic() + SECONDS_TO_WAIT
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_while_it_trains_it_leaves_the_champion_and_no_training(
    shop: Path, cache: Path
) -> None:
    champion = (shop / "latest").resolve()
    process = subprocess.Popen(
        [sys.executable, *refresh_command(shop, QUICK)],
        cwd=ROOT,
        env=environment(cache),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    before = {*(shop / "logs").iterdir()}
    until(lambda: any((run / "fit").exists() for run in {*(shop / "logs").iterdir()} - before))
    assert not Lock(shop / ".refresh.lock").held
    os.kill(process.pid, signal.SIGKILL)  # it alone
    process.wait()

    def is_free() -> bool:
        lock = Lock(shop / ".refresh.lock")
        lock.release()
        return lock.held

    until(is_free)  # which the training holds, too
    (left,) = {*(shop / "logs").iterdir()} - before
    assert not json.loads((left / "run.json").read_text())["complete"]
    assert (shop / "latest").resolve() == champion
    load_artifact(shop / "latest")


@pytest.mark.slow
def test_interrupted_while_it_trains_it_ends_in_order(shop: Path, cache: Path) -> None:
    champion, known = (shop / "latest").resolve(), set(shop.glob("logs/*"))
    process = subprocess.Popen(
        [sys.executable, *refresh_command(shop, QUICK)],
        cwd=ROOT,
        env=environment(cache),
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
def test_a_challenger_that_is_not_worse_is_served_under_load_and_knows_all_that_came(
    shop: Path, server: Server, cache: Path
) -> None:
    rows, champion = sample_rows(), (shop / "latest").resolve()
    before = load_artifact(champion)
    with load(server, before.users.ids.tolist()) as answers:
        done = refreshed(shop, "--server", f"http://{server.address}", cache=cache)
        number = len(answers)
        until(lambda: len(answers) > number + 4 * NUM_CLIENTS)
    assert done.returncode == 0, done.stderr
    served = load_artifact(shop / "latest")
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} == {before.version, served.version}
    # What was asked after the command's end.
    assert {version for _, version in answers[number + NUM_CLIENTS :]} == {served.version}
    assert versions(server) == {served.version}
    assert (shop / "latest").resolve() != champion
    assert last_line(shop)["promoted"]
    assert served.version == last_line(shop)["challenger"]
    pairs = zip(
        served.users.decode(served.histories.user_idx),
        served.items.decode(served.histories.item_idx),
        strict=True,
    )
    assert set(pairs) == set(zip(rows["user_id"], rows["item_id"], strict=True))
    # Whatever former turns have left behind.
    assert {one.name for one in shop.glob(".*")} == {".refresh.lock"}
    assert all((shop / run.name).exists() for run in (shop / "logs").iterdir())
    # Nothing has come since.
    done = refreshed(shop, cache=cache)
    assert done.returncode == 3, done.stderr
    assert "0 users have new events to compare on, and 50 must" in done.stderr


def test_a_second_turn_at_once_is_refused(untrained_bundle: Path, tmp_path: Path) -> None:
    lock = Lock(untrained_bundle.parent / ".refresh.lock")
    done = python(["-m", "recsys.refresh", "--bundle", str(untrained_bundle)], tmp_path)
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
