"""What a trace tells of steps that fail or are late."""

import threading
from operator import attrgetter

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from recsys.api.app import create_app
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from tests.collector import Collector, attributes, collecting


def traced_app(models: ModelStore, collector: Collector) -> TestClient:
    options = ServingOptions(tracing_endpoint=collector.endpoint, tracing_sample_rate=1, threads=1)
    return TestClient(create_app(models, options), raise_server_exceptions=False)


def only_trace(collector: Collector) -> tuple[Span, list[Span]]:
    (trace,) = collector.traces().values()
    return trace


@pytest.mark.parametrize(
    ("broken", "reason", "failed"),
    [
        ("retriever.index.search", "stage1_error", [False, False, True]),
        ("reranker.scores", "stage2_error", [False, False, False, True]),
    ],
)
def test_a_step_that_fails_is_marked_and_the_request_is_not(
    models: ModelStore,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
    reason: str,
    failed: list[bool],
) -> None:
    def fail(*args, **kwargs):
        raise RuntimeError("out of order")

    owner, _, name = broken.rpartition(".")
    monkeypatch.setattr(attrgetter(owner)(models.current), name, fail)
    with collecting() as collector:
        with traced_app(models, collector) as client:
            assert client.get("/recommend?user_id=101").json()["fallback"] == reason
        server, children = only_trace(collector)
    assert attributes(server)["recsys.fallback"] == reason
    assert server.status.code == Status.STATUS_CODE_UNSET
    assert [one.status.code == Status.STATUS_CODE_ERROR for one in children] == failed


def test_a_step_that_is_late_ends_with_the_answer_that_does_without_it(
    models: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    reranker = models.current.reranker
    scores = reranker.scores

    def slow(*arguments):
        assert go_on.wait(10)
        return scores(*arguments)

    monkeypatch.setattr(reranker, "scores", slow)
    with collecting() as collector:
        with traced_app(models, collector) as client:
            hurried = {"X-Deadline-Ms": "300"}
            answer = client.get("/recommend?user_id=101", headers=hurried).json()
            go_on.set()
        server, children = only_trace(collector)
    assert (answer["source"], answer["fallback"]) == ("retrieved", "deadline")
    assert attributes(server)["recsys.source"] == "retrieved"
    assert [child.name for child in children] == ["queue", "encode", "search", "rerank"]
    unfinished = ["recsys.unfinished" in attributes(child) for child in children]
    assert unfinished == [False, False, False, True]
    assert 0.2e9 < children[3].end_time_unix_nano - children[3].start_time_unix_nano < 2e9
    assert children[3].end_time_unix_nano <= server.end_time_unix_nano


def test_a_request_that_breaks_is_marked(
    models: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        with traced_app(models, collector) as client:
            monkeypatch.setattr("recsys.api.recommend.Request", None)
            body = {"history": [1001]}
            assert client.post("/recommend", json=body).status_code == 500
        server, children = only_trace(collector)
    assert attributes(server)["http.response.status_code"] == 500
    assert attributes(server)["recsys.request_id"]
    assert server.status.code == Status.STATUS_CODE_ERROR
    assert not children
