import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.request import Request

HERE: dict[str, Any] = {"client": ("127.0.0.1", 1), "base_url": "http://localhost"}
"""A client on this machine, which is told histories."""


@pytest.fixture
def string_client(string_id_bundle: Path) -> Iterator[TestClient]:
    with TestClient(create_app(ModelStore(string_id_bundle, "cpu"))) as client:
        yield client


def test_answers_what_the_recommender_answers(client: TestClient, untrained_recommender):
    response = client.get("/recommend", params={"user_id": 123, "top_k": 5})
    expected = untrained_recommender.recommend([Request(top_k=5, user_id=123)])[0]
    assert response.status_code == 200
    assert response.json() == {
        "user_id": 123,
        "top_items": expected.item_ids,
        "model_version": untrained_recommender.model_version,
        "source": "reranked",
    }


def test_ten_items_by_default(client: TestClient):
    assert len(client.get("/recommend?user_id=101").json()["top_items"]) == 10


def test_titles_on_request(client: TestClient):
    answer = client.get("/recommend?user_id=101&top_k=3&with_titles=true").json()
    assert answer["titles"] == [f"Film {item}" for item in answer["top_items"]]


def test_an_unknown_user_gets_popular_items(client: TestClient, untrained_recommender):
    answer = client.get("/recommend?user_id=-5&top_k=3").json()
    expected = untrained_recommender.recommend([Request(top_k=3)])[0]
    assert answer["source"] == "popular"
    assert answer["top_items"] == expected.item_ids
    assert answer["user_id"] == -5


def test_string_ids_and_a_bundle_without_stage_2(string_client: TestClient):
    answer = string_client.get("/recommend?user_id=u1&top_k=4").json()
    assert (answer["user_id"], answer["source"]) == ("u1", "retrieved")
    assert all(item.startswith("i") for item in answer["top_items"])
    numeric = string_client.get("/recommend?user_id=123").json()
    assert (numeric["user_id"], numeric["source"]) == ("123", "popular")


@pytest.mark.parametrize(
    ("query", "where", "message"),
    [
        ("user_id=101&top_k=0", "top_k", "greater than or equal to 1"),
        ("user_id=101&top_k=101", "top_k", "less than or equal to 100"),
        ("user_id=101&top_k=five", "top_k", "valid integer"),
        ("user_id=abc", "user_id", "valid integer"),
        ("user_id=1.5", "user_id", "valid integer"),
        (f"user_id={2**63}", "user_id", "less than"),
        ("top_k=5", "user_id", "Field required"),
        ("user_id=101&with_titles=perhaps", "with_titles", "valid boolean"),
    ],
)
def test_a_bad_request_is_refused_with_its_parameter(client, query, where, message):
    response = client.get(f"/recommend?{query}")
    assert response.status_code == 422
    (detail,) = response.json()["detail"]
    assert detail["loc"] == ["query", where]
    assert message in detail["msg"]


def test_an_empty_string_id_is_refused(string_client: TestClient):
    assert string_client.get("/recommend?user_id=").status_code == 422


def test_ready_only_between_start_and_stop(models: ModelStore):
    app = create_app(models)
    outside = TestClient(app)
    assert outside.get("/health/live").json() == {"status": "ok"}
    assert outside.get("/health/ready").status_code == 503
    with TestClient(app) as client:
        response = client.get("/health/ready")
        assert response.status_code == 200
        assert response.json()["model_version"] == models.current.model_version
    assert outside.get("/health/ready").status_code == 503


def test_health_answers_while_inference_runs(models: ModelStore, monkeypatch):
    started, go_on = threading.Event(), threading.Event()
    retrieve = models.current.retrieve

    def slow(requests, **options):
        started.set()
        assert go_on.wait(10)
        return retrieve(requests, **options)

    monkeypatch.setattr(models.current, "retrieve", slow)
    with TestClient(create_app(models)) as client:
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(client.get("/recommend?user_id=101").status_code)
        )
        asking.start()
        assert started.wait(10)
        assert client.get("/health/live").status_code == 200
        go_on.set()
        asking.join()
        assert answers == [200]


def test_the_schema_says_types_and_limits(client: TestClient, string_client: TestClient):
    def parameters(client: TestClient) -> dict:
        paths = client.get("/openapi.json").json()["paths"]
        return {p["name"]: p["schema"] for p in paths["/recommend"]["get"]["parameters"]}

    assert parameters(client)["user_id"]["type"] == "integer"
    assert parameters(string_client)["user_id"]["type"] == "string"
    top_k = parameters(client)["top_k"]
    assert (top_k["minimum"], top_k["maximum"], top_k["default"]) == (1, 100, 10)
    assert client.get("/docs").status_code == 200


def test_a_history_is_ranked_without_a_user(client: TestClient, untrained_recommender):
    body = {"history": [1001, 1005, 7], "exclude": [1002], "top_k": 4, "with_titles": True}
    (answer,) = client.post("/recommend", json=body).json()["results"]
    request = Request(4, history=[1001, 1005], exclude=[1002])
    assert answer["top_items"] == untrained_recommender.recommend([request])[0].item_ids
    assert answer["titles"] == [f"Film {item}" for item in answer["top_items"]]
    assert "user_id" not in answer


def test_several_users_are_answered_in_their_order(client: TestClient, untrained_recommender):
    body = {"user_ids": [150, -1, 101], "top_k": 3}
    results = client.post("/recommend", json=body).json()["results"]
    expected = untrained_recommender.recommend([Request(3, user_id=u) for u in body["user_ids"]])
    assert [answer["user_id"] for answer in results] == [150, -1, 101]
    assert [answer["top_items"] for answer in results] == [one.item_ids for one in expected]
    assert [answer["source"] for answer in results] == ["reranked", "popular", "reranked"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 422, "expected user_ids, history, query or context"),
        ({"user_ids": [1], "history": [1001]}, 422, "found both"),
        ({"user_ids": []}, 422, "at least 1 item"),
        ({"user_ids": [1] * 101}, 422, "at most 100 items"),
        ({"user_ids": [1], "topk": 3}, 422, "Extra inputs"),
        ({"user_ids": ["u1"]}, 400, "expected an integer for each user id; found 'u1'"),
        ({"history": ["Alien"]}, 400, "expected an integer for each item id; found 'Alien'"),
        ({"user_ids": [2**63]}, 400, "expected user ids of 64 bits"),
        ({"user_ids": [10**400]}, 400, "expected user ids of 64 bits"),
    ],
)
def test_a_bad_body_is_refused(client: TestClient, body: dict, status: int, message: str):
    response = client.post("/recommend", json=body)
    assert response.status_code == status
    assert message in response.text


def test_a_large_body_is_refused_before_it_is_read(client: TestClient):
    json = {"Content-Type": "application/json"}
    response = client.post("/recommend", content=b" " * 1_000_001, headers=json)
    assert response.status_code == 413
    fitting = client.post("/recommend", content=b" " * 1_000_000, headers=json)
    assert fitting.status_code == 422


def test_what_was_answered_is_kept_by_user_and_parameters(models: ModelStore):
    with TestClient(create_app(models)) as client:
        first = [client.get(f"/recommend?user_id=101&top_k={k}").content for k in (3, 4)]
        again = [client.get(f"/recommend?user_id=101&top_k={k}").content for k in (3, 4)]
        metrics = client.get("/metrics").text
    assert again == first
    assert first[0] != first[1]
    assert 'recsys_cache_requests_total{result="hit"} 2.0' in metrics
    assert 'recsys_cache_requests_total{result="miss"} 2.0' in metrics
    assert 'recsys_lists_total{source="reranked"} 2.0' in metrics


def test_without_a_cache_each_request_is_computed(models: ModelStore):
    with TestClient(create_app(models, ServingOptions(cache_mb=0))) as client:
        for _ in range(2):
            client.get("/recommend?user_id=101")
        metrics = client.get("/metrics").text
    assert 'recsys_lists_total{source="reranked"} 2.0' in metrics
    assert "recsys_cache_requests_total{" not in metrics


def test_a_slow_stage_2_is_left_out_when_the_deadline_comes(models: ModelStore, monkeypatch):
    go_on = threading.Event()
    rerank = models.current.rerank

    def slow(retrieved, **options):
        go_on.wait(10)
        return rerank(retrieved, **options)

    expected = models.current.recommend([Request(5, user_id=101)], rerank=False)[0]
    monkeypatch.setattr(models.current, "rerank", slow)
    with TestClient(create_app(models, ServingOptions(threads=1)), **HERE) as client:
        answer = client.get(
            "/recommend?user_id=101&top_k=5", headers={"X-Deadline-Ms": "200"}
        ).json()
        assert (answer["source"], answer["fallback"]) == ("retrieved", "deadline")
        assert answer["top_items"] == expected.item_ids
        # The thread is still busy: another one gets what needs no model.
        busy = client.get("/recommend?user_id=102", headers={"X-Deadline-Ms": "100"}).json()
        assert (busy["source"], busy["fallback"]) == ("popular", "deadline")
        metrics = client.get("/metrics").text
        go_on.set()
        # A list of a lesser stage is not kept.
        later = client.get("/recommend?user_id=101&top_k=5").json()
    assert 'recsys_fallbacks_total{reason="deadline"} 2.0' in metrics
    assert later["source"] == "reranked"


@pytest.mark.parametrize(
    ("broken", "source", "reason"),
    [("rerank", "retrieved", "stage2_error"), ("retrieve", "popular", "stage1_error")],
)
def test_a_broken_stage_is_told_and_done_without(
    models: ModelStore, monkeypatch, caplog, broken: str, source: str, reason: str
):
    def fail(*args, **kwargs):
        raise RuntimeError("out of order")

    monkeypatch.setattr(models.current, broken, fail)
    with TestClient(create_app(models)) as client:
        response = client.get("/recommend?user_id=101&top_k=5")
    assert response.status_code == 200
    assert (response.json()["source"], response.json()["fallback"]) == (source, reason)
    assert len(response.json()["top_items"]) == 5
    assert "out of order" in caplog.text


@pytest.mark.parametrize("value", ["0", "-5", "soon", "nan", "inf", "60001"])
def test_a_bad_deadline_is_refused(client: TestClient, value: str):
    response = client.get("/recommend?user_id=101", headers={"X-Deadline-Ms": value})
    assert response.status_code == 422


def test_answers_carry_security_headers(client: TestClient):
    headers = client.get("/recommend?user_id=101").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "access-control-allow-origin" not in headers


def test_paths_that_clients_make_up_share_a_label(client: TestClient):
    for number in range(3):
        assert client.get(f"/made-up-{number}").status_code == 404
    assert 'recsys_requests_total{route="none",status="404"} 3.0' in client.get("/metrics").text


def test_explanations_for_which_there_is_no_time_are_left_out_and_that_is_said(
    models: ModelStore, monkeypatch
):
    go_on = threading.Event()

    def held(*args, **options):
        assert go_on.wait(20)
        return []

    monkeypatch.setattr("recsys.api.explainer.explain", held)
    with TestClient(create_app(models), **HERE) as client:
        answer = client.get("/recommend?user_id=101&explain=true").json()
        go_on.set()
    assert (answer["fallback"], answer["degraded"]) == ("deadline", ["explanations"])
    assert len(answer["top_items"]) == 10
    assert "explanations" not in answer


@pytest.mark.parametrize("deadline", ["60000", "0.001"])
def test_nothing_of_a_large_answer_is_made_on_the_event_loop(
    models: ModelStore, monkeypatch, deadline: str
):
    threads: set[str] = set()

    def noted(own):
        def noting(*args, **options):
            threads.add(threading.current_thread().name)
            return own(*args, **options)

        return noting

    for name in ("popular", "as_retrieved", "rerank", "titles", "returnable"):
        monkeypatch.setattr(models.current, name, noted(getattr(models.current, name)))
    monkeypatch.setattr(models, "added_since", lambda time: dict.fromkeys([1001, 1002], time))
    body = {
        "user_ids": list(range(101, 191)),
        "top_k": 30,
        "with_titles": True,
        "rules": {"diversity": 1, "diversify": "dpp", "caps": {"genre": 20}, "pin": [1003]},
    }
    options = ServingOptions(exploration_epsilon=0.5, exploration_days=20_000)
    with TestClient(create_app(models, options)) as client:
        response = client.post("/recommend", json=body, headers={"X-Deadline-Ms": deadline})
    results = response.json()["results"]
    assert [one["user_id"] for one in results] == body["user_ids"]
    assert all(len(one["titles"]) == len(one["top_items"]) for one in results)
    assert threads <= {"inference-0", "late"}
    assert threads
    late = {one.get("fallback") for one in results}
    assert late == ({"deadline"} if deadline == "0.001" else {None})
