"""The serving benchmark: figures by hand, servers that start, and wrk where it is installed."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks import servers, serving, serving_tables
from benchmarks.synthetic_bundle import Size
from recsys.errors import InputError

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")


def drive(
    server: str, connections: int, rps: float, p99: float, cpu_ms: float, bad: int = 0
) -> dict:
    return {
        "server": server,
        "connections": connections,
        "rps": rps,
        "p50": 1.0,
        "p95": 2.0,
        "p99": p99,
        "cpu_ms": cpu_ms,
        "bad": bad,
    }


@pytest.fixture
def content() -> dict:
    """Three turns of one bundle."""
    drives = []
    for bare, own, bad in ((1000, 300, 0), (2000, 800, 1), (4000, 1000, 0)):
        for connections in serving.CONNECTIONS:
            drives += [
                drive(serving.BARE, connections, bare, 2.0, 200 / bare),
                drive(serving.COLD, connections, own, 8.0, 600 / own, bad),
                drive(serving.WARM, connections, bare, 3.0, 400 / bare),
            ]
    steps = dict.fromkeys(serving.STEPS, 0.5)
    bundle = {
        "version": "v1",
        "items": 6000,
        "users": 1000,
        "events": 100_000,
        "candidates": 200,
        "same_lists": 1.0,
        "stage2_ms": {"1": 0.9, "16": 0.4},
        "passes": 0.5,
        "warm_hits": 0.75,
        "drives": drives,
        "budget_ms": {"waits": {"HTTP": 1.0, **steps}, "work": steps},
    }
    return {"turns": 3, "seconds": 10, "bundles": [bundle]}


def rows(table) -> list[tuple[str, ...]]:
    return list(zip(*(column.cells for column in table.columns), strict=True))


def test_ratios_are_those_of_a_turn_and_figures_medians(content: dict) -> None:
    _, table, _ = serving.tables(content)
    found = rows(table)
    assert len(found) == 9
    alone = ("2,000", "100%", "1.0", "2.0", "2.0", "1.0", "0.100", "1.0", "0")
    assert found[0] == (serving.BARE, "1", *alone)
    # 30%, 40% and 25% of the turns' bare endpoints; 800 is the median of the requests per second.
    # CPU: 2 / .2, .75 / .1 and .6 / .05.
    cold = ("800", "30%", "1.0", "2.0", "8.0", "4.0", "0.750", "10.0", "1")
    assert found[4] == (serving.COLD, "16", *cold)


def test_what_counts_comes_first_cold_before_warm(content: dict) -> None:
    summary = serving.tables(content)[0]
    assert rows(summary) == [
        ("6,000", "1,000", "cold", "0.750", "0.100", "10.0", "30%", "4.0"),
        ("6,000", "1,000", "warm", "0.200", "0.100", "2.0", "100%", "1.5"),
    ]


def test_how_often_cold_users_came_is_told(content: dict) -> None:
    bundle = content["bundles"][0]
    once = serving_tables.speed_table(bundle, content).caption
    assert "no user was asked for twice (50% of them once)" in str(once)
    bundle["passes"] = 3.25
    again = serving_tables.speed_table(bundle, content).caption
    assert "each user came 3.2 times, all others in between" in str(again)


def test_hits_are_a_share_of_look_ups() -> None:
    key = 'recsys_cache_requests_total{{result="{}"}}'.format
    before, after = {key("hit"): 10.0}, {key("hit"): 40.0, key("miss"): 10.0}
    assert serving.share_of_hits(before, after) == pytest.approx(0.75)
    assert serving.share_of_hits(after, after) == 0


def test_cold_servers_keep_nothing_of_users() -> None:
    commands = serving.commands(Path("b"), Path("/s"), ["max_batch=8"])
    for name in (serving.COLD, serving.COLD_NO_STORE, serving.COLD_ONE_WORKER):
        assert set(serving.cold_options()) <= set(commands[name])
    assert "cache.enabled=true" in commands[serving.WARM]
    assert all(
        "max_batch=8" in command for name, command in commands.items() if name != "bare endpoint"
    )


def test_cpu_is_that_of_all_processes() -> None:
    burn = "import time\nwhile time.process_time() < .4: pass\n"
    script = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {burn!r}])\n"
        f"waiting = {burn!r} + 'print(flush=True); input()'\n"
        "child = subprocess.Popen([sys.executable, '-c', waiting], stdin=-1, stdout=-1)\n"
        "child.stdout.readline()\n"
        f"{burn}"
        "print('done', flush=True)\n"
        "input()\n"
        "child.communicate(b'\\n')\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        assert len(servers.processes(process.pid)) == 2
        assert servers.cpu_seconds(process.pid) >= 1.0
        process.communicate("\n")


@needs_wrk
def test_each_user_is_asked_for_in_turn(tmp_path: Path) -> None:
    paths = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever).start()
        server = servers.Server(f"http://127.0.0.1:{http.server_port}", os.getpid(), 0.0)
        users = servers.write_users([7, "b c", 9], tmp_path, "users")
        found = servers.drive(server, users, 1, 1, start=2)
        http.shutdown()
    asked = [path.split("user_id=")[1] for path in paths]
    # wrk makes one request that it does not send, and gives up the last one.
    order = ["9", "7", "b%20c"]
    assert asked == [order[(place + 1) % 3] for place in range(len(asked))]
    assert found["requests"] <= len(asked) < found["asked"] <= len(asked) + 2
    assert found["cpu_ms"] > 0
    assert found["bad"] == 0


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
@pytest.mark.timeout(900)
@needs_wrk
def test_bundles_are_driven_without_a_bad_answer(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (serving, serving_tables):
        monkeypatch.setattr(module, "CONNECTIONS", (16,))
    monkeypatch.setattr(serving, "SECONDS_TO_WAKE", 1)
    arguments = argparse.Namespace(
        bundle=untrained_bundle, sizes=[Size(50, 40)], seconds=1, turns=1, warm_up=1, overrides=[]
    )
    content = serving.measure(arguments)
    own, made = content["bundles"]
    assert (made["items"], made["users"], made["candidates"]) == (50, 40, 200)
    assert (len(own["drives"]), len(made["drives"])) == (5, 3)
    for bundle in (own, made):
        drives = bundle["drives"]
        assert all(one["requests"] > 0 and one["bad"] == 0 for one in drives)
        assert all(one["p50"] <= one["p95"] <= one["p99"] for one in drives)
        assert all(one["cpu_ms"] > 0 for one in drives)
        waits, work = bundle["budget_ms"]["waits"], bundle["budget_ms"]["work"]
        assert all(0 < work[step] <= waits[step] for step in serving.STEPS)
        assert waits["HTTP"] > 0
        assert sum(waits.values()) == pytest.approx(2 * waits["all"])
        assert bundle["same_lists"] == 1.0
        assert all(0 < value < 1000 for value in bundle["stage2_ms"].values())
        assert bundle["passes"] > 1
        assert bundle["warm_hits"] > 0.5
    assert len(serving.tables(content)) == 5


@needs_wrk
def test_what_wrk_cannot_drive_is_told(tmp_path: Path) -> None:
    server = servers.Server("http://127.0.0.1:9", os.getpid(), 0.0)
    with pytest.raises(InputError, match="figures from wrk"):
        servers.drive(server, servers.write_users([1], tmp_path, "users"), 1, 1)
