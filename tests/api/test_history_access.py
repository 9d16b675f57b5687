"""What a stored user did is told to holders of a key, or without any keys to this machine."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.api.history_access import longest_plain_list
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.recommender import Recommender

KEY = {"X-API-Key": "Ada"}
DIGEST = hashlib.sha256(b"Ada").hexdigest()
USER, HISTORY = 104, {1005, 1007, 1009, 1011}
EVERYTHING = list(range(1001, 1031))
PATIENT = {"X-Deadline-Ms": "60000"}


@pytest.fixture(params=["with keys", "from elsewhere", "through a proxy"])
def stranger(
    request: pytest.FixtureRequest, untrained_bundle: Path, tmp_path: Path
) -> Iterator[TestClient]:
    """Somebody who is not told."""
    keys = [DIGEST] if request.param == "with keys" else []
    address = "192.0.2.1" if request.param == "from elsewhere" else "127.0.0.1"
    headers = {"X-Real-IP": "192.0.2.1"} if request.param == "through a proxy" else {}
    options = ServingOptions(store_url=f"sqlite+aiosqlite:///{tmp_path}/e.db", deadline_ms=60000)
    app = create_app(ModelStore(untrained_bundle, "cpu"), options, keys)
    with TestClient(
        app, client=(address, 1), base_url="http://localhost", headers=headers
    ) as client:
        yield client


NARROWED: list[dict[str, Any]] = [
    {"rules": {"allow": EVERYTHING}},
    {"rules": {"exclude_seen": False}},
    {"rules": {"block": EVERYTHING[:5]}},
    {"rules": {"pin": sorted(HISTORY)}},
    {"rules": {"boost": {"item:1005": 1e6}}},
    {"rules": {"genres_any": ["Drama"]}},
    {"rules": {"genres_none": ["Drama"]}},
    {"rules": {"year_min": 1984, "year_max": 1984}},
    {"rules": {"caps": {"genre": 1}}},
    {"rules": {"diversity": 1}},
    {"exclude": EVERYTHING[:5]},
    {"context": {"age": 20}},
    {"top_k": 30},
    {"explain": True},
]


@pytest.mark.parametrize("asked", NARROWED)
def test_who_may_not_know_gets_the_list_of_nobody(
    stranger: TestClient, asked: dict[str, Any]
) -> None:
    body = {"top_k": 15, **asked}
    response = stranger.post("/recommend", json={"user_ids": [USER, 7], **body})
    assert response.status_code == 200, response.text
    known, unknown = response.json()["results"]
    assert (known.pop("user_id"), unknown.pop("user_id")) == (USER, 7)
    assert known == unknown
    assert known["degraded"] == ["history"]
    assert all(one["because"] == [] for one in known.get("explanations", []))


@pytest.mark.parametrize(
    "query", ["explain=true", "genre=Drama", "exclude_genre=War", "year_max=1990", "diversity=0.5"]
)
def test_nor_by_get(stranger: TestClient, query: str) -> None:
    known, unknown = (
        stranger.get(f"/recommend?user_id={user}&top_k=15&{query}").json() for user in (USER, 7)
    )
    assert (known.pop("user_id"), unknown.pop("user_id")) == (USER, 7)
    assert known == unknown
    assert known["degraded"] == ["history"]


def test_nor_by_a_list_of_all_items(stranger: TestClient) -> None:
    assert longest_plain_list(30) == 15
    for path in ("/recommend?user_id=104&top_k=30", "/recommend?user_id=104&top_k=16"):
        answer = stranger.get(path).json()
        assert answer["degraded"] == ["history"]
        assert set(answer["top_items"]) & HISTORY


def test_nor_by_a_time_that_is_too_short(
    stranger: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is popular items then: of another list, those that were seen would be missing."""
    retrieve = Recommender.retrieve

    def slow(self: Recommender, *given: Any, **more: Any) -> Any:
        time.sleep(0.5)
        return retrieve(self, *given, **more)

    monkeypatch.setattr(Recommender, "retrieve", slow)
    hurry = {"X-Deadline-Ms": "50"}
    answer = stranger.get("/recommend?user_id=104&top_k=15", headers=hurry).json()
    nobody = stranger.get("/recommend?user_id=7&top_k=15", headers=hurry).json()
    assert answer["source"] == "popular"
    assert answer["top_items"] == nobody["top_items"]
    body = {"user_ids": [104, 7], "top_k": 15}
    known, unknown = stranger.post("/recommend", json=body, headers=hurry).json()["results"]
    assert known["top_items"] == unknown["top_items"]


def test_features_are_not_told_either(stranger: TestClient) -> None:
    assert stranger.get("/features?user_id=104").status_code in (401, 403)


def test_a_plain_list_is_the_users_own_and_leaves_out_what_was_seen(stranger: TestClient) -> None:
    answer = stranger.get("/recommend?user_id=104&top_k=15").json()
    assert answer["source"] == "reranked"
    assert "degraded" not in answer
    assert not set(answer["top_items"]) & HISTORY
    same = {"user_ids": [104], "top_k": 15, "rules": {"exclude_seen": True, "block": []}}
    assert stranger.post("/recommend", json=same).json()["results"] == [answer]


def test_who_sends_a_history_knows_it(stranger: TestClient) -> None:
    body = {"history": [1005, 1007], "top_k": 3, "explain": True, "rules": {"year_min": 1985}}
    (answer,) = stranger.post("/recommend", json=body).json()["results"]
    assert answer["source"] == "reranked"
    assert "degraded" not in answer


def test_who_may_know_is_told(untrained_bundle: Path) -> None:
    options = ServingOptions(deadline_ms=60000)
    app = create_app(ModelStore(untrained_bundle, "cpu"), options, [DIGEST])
    with TestClient(app) as client:
        path = "/recommend?user_id=104&top_k=4&explain=true"
        answer = client.get(path, headers=KEY).json()
        assert any(one["because"] for one in answer["explanations"])
        # A key that is wrong is told as such, whatever else could be answered.
        assert client.get(path, headers={"X-API-Key": "Eve"}).status_code == 401
        body = {"user_ids": [104], "explain": True}
        wrong = client.post("/recommend", json=body, headers={"X-API-Key": "Eve"})
        assert wrong.status_code == 401
