"""Traces of a real server, as a collector receives them."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from recsys.api.options import ServingOptions
from recsys.errors import InputError
from tests.collector import Collector, attributes, collecting
from tests.test_serve_faults import ask, serving

ROOT = Path(__file__).parents[1]
STEPS = ["queue", "encode", "search", "rerank", "rules"]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@contextmanager
def traced(bundle: Path, endpoint: str, rate: float, *options: str) -> Iterator[str]:
    """A server that traces; it has sent all its spans at the end."""
    settings = (f"tracing.endpoint={endpoint}", f"tracing.sample_rate={rate}", *options)
    with serving(bundle, *settings) as (process, address):
        yield address
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)


def send(address: str, path: str, body: object = None, **headers: str) -> int:
    """The status of the answer."""
    request = urllib.request.Request(
        f"http://{address}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"}
        | {name.replace("_", "-"): value for name, value in headers.items()},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def new_trace() -> tuple[str, str, str]:
    """Ids of a trace and of a span in it, and the header of a client who samples it."""
    trace_id, span_id = f"{random.getrandbits(128):032x}", f"{random.getrandbits(64):016x}"
    return trace_id, span_id, f"00-{trace_id}-{span_id}-01"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_each_of_many_requests_has_its_own_steps_in_its_clients_trace(
    untrained_bundle: Path, collector: Collector, workers: int
) -> None:
    number = 120
    clients = [new_trace() for _ in range(number)]

    def request(index: int) -> int:
        # Every other one takes the short way for plain requests, the others FastAPI's.
        path = f"/recommend?user_id={101 + index % 90}" + ("", "&with_titles=true")[index % 2]
        header = clients[index][2]
        return send(address, path, traceparent=header, X_Request_ID=f"number-{index}")

    options = ("cache.enabled=false", f"workers={workers}", "deadline_ms=20000")
    with (
        traced(untrained_bundle, collector.endpoint, 0, *options) as address,
        ThreadPoolExecutor(24) as pool,
    ):
        assert set(pool.map(request, range(number))) == {200}
        version = ask(address, "/health/ready")["model_version"]

    assert collector.paths == {"/v1/traces"}
    assert collector.services == {"two-stage-recsys"}
    assert len(collector.processes) == workers
    traces = collector.traces()
    assert set(traces) == {trace_id for trace_id, _, _ in clients}
    sizes = set()
    for index, (trace_id, span_id, _) in enumerate(clients):
        server, children = traces[trace_id]
        assert server.parent_span_id.hex() == span_id
        assert server.name == "GET /recommend"
        found = attributes(server)
        assert found["http.route"] == "/recommend"
        assert found["http.response.status_code"] == 200
        assert found["recsys.request_id"] == f"number-{index}"
        assert found["recsys.source"] == "reranked"
        assert found["recsys.model_version"] == version
        assert "recsys.fallback" not in found
        assert [child.name for child in children] == STEPS
        assert not any("recsys.unfinished" in attributes(child) for child in children)
        ends = [child.end_time_unix_nano for child in children]
        starts = [child.start_time_unix_nano for child in children]
        assert server.start_time_unix_nano <= starts[0]
        assert ends[0] == starts[1] < ends[1] <= starts[2] < ends[2]
        assert ends[2] <= server.end_time_unix_nano
        (size,) = {attributes(child)["recsys.batch_size"] for child in children}
        sizes.add(size)
    assert max(sizes) > 1


def test_a_span_says_what_became_of_the_request(
    untrained_bundle: Path, collector: Collector
) -> None:
    clients = {
        name: new_trace() for name in ("late", "many", "shed", "new", "kept", "wrong", "none")
    }

    def request(name: str, path: str, body: object = None, **headers: str) -> int:
        return send(address, path, body, traceparent=clients[name][2], **headers)

    with traced(
        untrained_bundle, collector.endpoint, 0, "max_queue=40", "max_batch=8", "threads=1"
    ) as address:
        assert request("late", "/recommend?user_id=101", X_Deadline_Ms="0.001") == 200
        users = {"user_ids": list(range(101, 131))}
        assert request("many", "/recommend", users) == 200
        answered: set[str] = set()
        crowd = {"user_ids": list(range(40))}
        with ThreadPoolExecutor(4) as pool:
            together = [pool.submit(send, address, "/recommend", crowd) for _ in range(40)]
            until = time.monotonic() + 20
            while (status := request("shed", "/recommend", crowd)) != 503:
                assert time.monotonic() < until
                answered.add(clients["shed"][0])
                clients["shed"] = new_trace()
            for one in together:
                one.cancel()
        assert status == 503
        assert request("new", "/recommend?user_id=140") == 200
        assert request("kept", "/recommend?user_id=140") == 200
        assert request("wrong", "/recommend?user_id=x") == 422
        assert request("none", "/nowhere") == 404
        # Neither of a client who does not sample its trace, nor of probes.
        assert send(address, "/health/live", traceparent=new_trace()[2]) == 200
        assert send(address, "/metrics", traceparent=new_trace()[2]) == 200
        unsampled = new_trace()[2].removesuffix("1") + "0"
        assert send(address, "/recommend?user_id=101", traceparent=unsampled) == 200
        assert send(address, "/recommend?user_id=101", traceparent="00-nonsense-01") == 200

    traces = collector.traces()
    assert set(traces) == {trace_id for trace_id, _, _ in clients.values()} | answered
    servers = {name: traces[trace_id][0] for name, (trace_id, _, _) in clients.items()}
    children = {name: traces[trace_id][1] for name, (trace_id, _, _) in clients.items()}
    found = {name: attributes(span) for name, span in servers.items()}
    assert {name: one["http.response.status_code"] for name, one in found.items()} == {
        **dict.fromkeys(("late", "many", "new", "kept"), 200),
        **{"shed": 503, "wrong": 422, "none": 404},
    }
    failed = {
        name for name, span in servers.items() if span.status.code == Status.STATUS_CODE_ERROR
    }
    assert failed == {"shed"}

    assert found["late"]["recsys.fallback"] == "deadline"
    assert children["late"][0].name == "queue"
    assert found["new"]["recsys.cache_hit"] is False
    assert found["kept"]["recsys.cache_hit"] is True
    assert found["kept"]["recsys.model_version"] == found["new"]["recsys.model_version"]
    assert [child.name for child in children["new"]] == STEPS
    for name in ("kept", "wrong", "none"):
        assert not children[name]
    assert "http.route" not in found["none"]

    # Thirty lists in batches of eight at most: each batch is told once, and none is left out.
    by_name = defaultdict(list)
    for child in children["many"]:
        by_name[child.name].append(attributes(child)["recsys.batch_size"])
    assert all(by_name[step] == by_name["queue"] for step in STEPS)
    assert sum(by_name["queue"]) == 30
    assert servers["many"].name == "POST /recommend"


def test_a_share_of_requests_is_traced(untrained_bundle: Path, collector: Collector) -> None:
    with traced(untrained_bundle, collector.endpoint, 0.25) as address:
        for _ in range(400):
            assert send(address, "/recommend?user_id=101") == 200
    # Six standard deviations around 100.
    assert 48 < len(collector.traces()) < 152


@pytest.fixture(params=["refuses", "is silent"])
def broken_collector(request: pytest.FixtureRequest) -> Iterator[str]:
    """The endpoint of a collector that does not listen, or that accepts and never answers."""
    if request.param == "is silent":
        with socket.create_server(("127.0.0.1", 0), backlog=1000) as silent:
            yield f"http://127.0.0.1:{silent.getsockname()[1]}"
    else:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        yield f"http://127.0.0.1:{port}"


@pytest.mark.slow
def test_a_broken_collector_costs_no_request_and_no_long_wait_at_the_end(
    untrained_bundle: Path, broken_collector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that spans are sent, in vain, while requests are answered.
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    settings = (f"tracing.endpoint={broken_collector}", "tracing.sample_rate=1")
    options = ("cache.enabled=false", "deadline_ms=20000")
    with serving(untrained_bundle, *settings, *options) as (process, address):
        seconds, until = [], time.monotonic() + 4
        while time.monotonic() < until:
            started = time.monotonic()
            assert ask(address, "/recommend?user_id=101")["source"] == "reranked"
            seconds.append(time.monotonic() - started)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
        # Two seconds for what is left, and what a server takes to end anyhow.
        assert time.monotonic() - started < 6
    # Each wait for a collector takes a second or two, one after the other.
    assert sum(one for one in seconds if one > 0.5) < 2


MISSING = (
    "import sys; sys.modules['opentelemetry.sdk'] = None; import runpy; sys.argv = sys.argv[1:]"
)


@pytest.mark.parametrize("workers", [1, 2])
def test_without_its_packages_tracing_says_what_to_install(
    untrained_bundle: Path, workers: int
) -> None:
    code = f"{MISSING}; runpy.run_path('serve.py', run_name='__main__')"
    settings = [f"bundle={untrained_bundle}", "port=0", "device=cpu", f"workers={workers}"]
    done = subprocess.run(
        [*(sys.executable, "-c", code, "serve.py"), *settings, "tracing.endpoint=http://x:4318"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "expected OpenTelemetry's packages, since tracing.endpoint is set" in done.stderr
    assert done.stderr.endswith("run: pip install -r requirements-tracing.txt\n")


def test_without_tracing_nothing_of_it_is_imported() -> None:
    code = f"{MISSING}; import recsys.api.server"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("endpoint", "rate", "message"),
    [
        ("localhost:4318", 1.0, "tracing.endpoint to be an http:// or https:// URL; found 'local"),
        ("grpc://x:4317", 1.0, "found 'grpc://x:4317'; set tracing.endpoint=http://localhost"),
        ("http://", 1.0, "found 'http://'"),
        ("http://x:99999", 1.0, "found 'http://x:99999'"),
        ("http://x", 1.5, "expected tracing.sample_rate in 0..1; found 1.5"),
        ("http://x", -0.1, "found -0.1"),
        ("http://x", float("nan"), "found nan"),
    ],
)
def test_a_wrong_setting_is_refused(endpoint: str, rate: float, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        ServingOptions(tracing_endpoint=endpoint, tracing_sample_rate=rate)


def test_the_endpoint_may_name_the_path(untrained_bundle: Path, collector: Collector) -> None:
    with traced(untrained_bundle, f"{collector.endpoint}/v1/traces/", 1) as address:
        assert send(address, "/recommend?user_id=101") == 200
    assert collector.paths == {"/v1/traces"}
    assert len(collector.traces()) == 1
