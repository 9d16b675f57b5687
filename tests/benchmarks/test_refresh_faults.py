"""The benchmark of killed refreshes: what it calls a fault, and its table."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import refresh_faults
from recsys.bundle import make_latest
from recsys.core.locks import Lock

KILL = {
    **{"seconds": 3.0, "killed": "alone", "processes": 2, "seconds_to_end": 0.1},
    **{"still_running": [], "said": "a | b", "served": "one", "megabytes": 2.0, "temporary": 0},
}


@pytest.fixture
def shop(untrained_bundle: Path, tmp_path: Path) -> Path:
    for name in ("one", "two"):
        shutil.copytree(untrained_bundle, tmp_path / name)
    make_latest(tmp_path / "one")
    return tmp_path


def test_nothing_is_amiss_where_the_champion_is_served(shop: Path) -> None:
    assert refresh_faults.found_amiss(shop, shop / "one", KILL) == []


def test_each_fault_is_found(shop: Path) -> None:
    lock = Lock(shop / ".refresh.lock")
    (shop / "one" / "index.faiss").write_bytes(b"")
    make_latest(shop / "two")
    found = refresh_faults.found_amiss(shop, shop / "one", {**KILL, "still_running": [7]})
    lock.release()
    assert found[0] == "process 7 goes on"
    assert "index.faiss" in found[1]
    assert found[2] == "two is served, and was not evaluated"
    assert found[3] == "the lock is held"


def test_who_runs() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert refresh_faults.runs(process.pid)
        process.kill()
        process.wait()
        assert not refresh_faults.runs(process.pid)
        assert refresh_faults.used(process.pid) == 0


def test_the_table_is_in_order_of_time_and_says_how_many_faults_there_were() -> None:
    kills = [{**KILL, "seconds": seconds} for seconds in (5.0, 1.0)]
    content = {"kills": kills, "faults": ["x"], "megabytes": {"before": 1.0, "after": 2.0}}
    table = refresh_faults.table_of(content)
    assert "2 kills, 1 faults" in str(table.title)
    assert list(table.columns[0].cells) == ["1.0", "5.0"]
    assert list(table.columns[3].cells) == ["a / b"] * 2
