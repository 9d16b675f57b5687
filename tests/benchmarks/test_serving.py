"""The serving benchmark: figures by hand, servers that start, and wrk where it is installed."""

import argparse
import json
import shutil
import urllib.request
from pathlib import Path

import pytest

from benchmarks import serving
from recsys.errors import InputError


def drive(server: str, connections: int, rps: float, p99: float, bad: int = 0) -> dict:
    return {
        "server": server,
        "connections": connections,
        "rps": rps,
        "p50": 1.0,
        "p95": 2.0,
        "p99": p99,
        "bad": bad,
    }


def test_ratios_are_those_of_a_turn_and_figures_medians() -> None:
    drives = []
    for bare, own, bad in ((1000, 300, 0), (2000, 800, 1), (4000, 1000, 0)):
        for connections in serving.CONNECTIONS:
            drives += [
                drive(serving.BARE, connections, bare, 2.0),
                drive(serving.UNCACHED, connections, own, 8.0, bad),
                drive(serving.NO_STORE, connections, own, 8.0),
                drive(serving.ONE_WORKER, connections, own, 8.0),
                drive(serving.CACHED, connections, bare, 3.0),
            ]
    table = serving.speed_table({"turns": 3, "seconds": 10, "drives": drives})
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert len(rows) == 15
    assert rows[0] == (serving.BARE, "1", "2,000", "100%", "1.0", "2.0", "2.0", "1.0", "0")
    # 30%, 40% and 25% of the turns' bare endpoints; 800 is the median of the requests per second.
    assert rows[6] == (serving.UNCACHED, "16", "800", "30%", "1.0", "2.0", "8.0", "4.0", "1")


def test_the_bare_endpoint_answers() -> None:
    with (
        serving.serving(["benchmarks/bare_app.py", "{port}"], "/recommend?user_id=1") as server,
        urllib.request.urlopen(f"{server.url}/recommend?user_id=7&top_k=3", timeout=10) as response,
    ):
        assert json.load(response) == {"user_id": 7, "top_items": [0, 1, 2]}


def test_a_server_that_does_not_start_is_told() -> None:
    with (
        pytest.raises(InputError, match=r"expected a server; found serve\.py that does not answer"),
        serving.serving(["serve.py", "bundle=nowhere", "port={port}"], "/health/ready"),
    ):
        pass


def test_a_missing_wrk_is_told_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt install wrk"):
        serving.measure(argparse.Namespace(bundle=Path("nowhere")))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_a_bundle_is_driven_without_a_bad_answer(untrained_bundle: Path) -> None:
    arguments = argparse.Namespace(
        bundle=untrained_bundle, seconds=1, turns=1, warm_up=1, overrides=[]
    )
    content = serving.measure(arguments)
    assert len(content["drives"]) == 15
    assert all(one["requests"] > 0 and one["bad"] == 0 for one in content["drives"])
    assert all(one["p50"] <= one["p95"] <= one["p99"] for one in content["drives"])
    waits, work = content["budget_ms"]["waits"], content["budget_ms"]["work"]
    assert all(0 < work[step] <= waits[step] for step in serving.STEPS)
    assert waits["HTTP"] > 0
    assert sum(waits.values()) == pytest.approx(2 * waits["all"])
    assert "100.0% get the same 10 items" in content["protocol"]


def test_what_wrk_cannot_drive_is_told() -> None:
    if shutil.which("wrk") is None:
        pytest.skip("needs wrk")
    with pytest.raises(InputError, match="figures from wrk"):
        serving.drive("http://127.0.0.1:9", "1", 1, 1)
