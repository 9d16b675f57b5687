import threading
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.errors import InputError
from recsys.recommender import Recommender
from recsys.schema import Request


@pytest.fixture
def client(untrained_recommender: Recommender) -> Iterator[TestClient]:
    with TestClient(create_app(untrained_recommender)) as client:
        yield client


@pytest.fixture
def string_client(string_id_recommender: Recommender) -> Iterator[TestClient]:
    with TestClient(create_app(string_id_recommender)) as client:
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


def test_an_input_error_is_a_client_error(client: TestClient, untrained_recommender, monkeypatch):
    def refuse(requests):
        raise InputError("this", "that", "do so")

    monkeypatch.setattr(untrained_recommender, "recommend", refuse)
    response = client.get("/recommend?user_id=101")
    assert response.status_code == 400
    assert response.json() == {"detail": "expected this; found that; do so"}


def test_ready_only_between_start_and_stop(untrained_recommender: Recommender):
    app = create_app(untrained_recommender)
    outside = TestClient(app)
    assert outside.get("/health/live").json() == {"status": "ok"}
    assert outside.get("/health/ready").status_code == 503
    with TestClient(app) as client:
        response = client.get("/health/ready")
        assert response.status_code == 200
        assert response.json()["model_version"] == untrained_recommender.model_version
    assert outside.get("/health/ready").status_code == 503


def test_health_answers_while_inference_runs(untrained_recommender, monkeypatch):
    started, go_on = threading.Event(), threading.Event()
    recommend = untrained_recommender.recommend

    def slow(requests):
        started.set()
        assert go_on.wait(10)
        return recommend(requests)

    with TestClient(create_app(untrained_recommender)) as client:
        monkeypatch.setattr(untrained_recommender, "recommend", slow)
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
