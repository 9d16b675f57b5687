"""An id means one user or item, and what is no id means none."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.core.ids import integer_id
from recsys.errors import InputError

NO_INTEGERS = [
    "10_1",
    "+101",
    " 101",
    "101 ",
    "\t101",
    "101\n",
    "0101",
    "00",
    "-0",
    "--1",
    "101.0",
    "1e2",
    "0x65",
    "\u0661\u0660\u0661",
    "\uff11\uff10\uff11",
    "101/",
    "",
    "true",
    "NaN",
    "9" * 400,
]


@pytest.fixture
def client(untrained_bundle: Path, tmp_path: Path) -> Iterator[TestClient]:
    options = ServingOptions(store_url=f"sqlite+aiosqlite:///{tmp_path}/e.db")
    app = create_app(ModelStore(untrained_bundle, "cpu"), options)
    with TestClient(app, client=("127.0.0.1", 1), base_url="http://localhost") as client:
        yield client


@pytest.fixture
def string_client(string_id_bundle: Path, tmp_path: Path) -> Iterator[TestClient]:
    options = ServingOptions(store_url=f"sqlite+aiosqlite:///{tmp_path}/e.db")
    app = create_app(ModelStore(string_id_bundle, "cpu"), options)
    with TestClient(app, client=("127.0.0.1", 1), base_url="http://localhost") as client:
        yield client


def test_an_integer_is_written_in_one_way() -> None:
    assert [integer_id(text) for text in ("0", "7", "-7", str(2**63 - 1), str(-(2**63)))] == [
        *(0, 7, -7, 2**63 - 1, -(2**63)),
    ]
    assert [integer_id(text) for text in [*NO_INTEGERS, str(2**63)]] == [None] * 21


@pytest.mark.parametrize("text", NO_INTEGERS)
def test_what_is_no_integer_is_refused_on_every_route(client: TestClient, text: str) -> None:
    encoded = quote(text, safe="")
    for method, path, body in (
        ("GET", f"/recommend?user_id={encoded}", None),
        ("GET", f"/recommend?user_id={encoded}&with_titles=true", None),
        ("GET", f"/features?user_id={encoded}", None),
        ("GET", f"/features?item_id={encoded}", None),
        ("PUT", f"/items/{encoded}", {"title": "x"}),
        ("DELETE", f"/users/{encoded}", None),
    ):
        assert client.request(method, path, json=body).status_code == 422, (method, path)
    # Nobody was forgotten.
    assert client.get("/recommend?user_id=101").json()["source"] == "reranked"


@pytest.mark.parametrize("sent", [True, 101.0, 101.5, "101", None, [101], 1e3, "", "x" * 300])
def test_nor_in_json(client: TestClient, sent: Any) -> None:
    event = {"event_id": "a", "user_id": 101, "item_id": 1001, "type": "like"}
    for path, body in (
        ("/recommend", {"user_ids": [sent]}),
        ("/recommend", {"history": [sent]}),
        ("/recommend", {"history": [1001], "exclude": [sent]}),
        ("/recommend", {"history": [1001], "rules": {"block": [sent]}}),
        ("/recommend", {"history": [1001], "rules": {"allow": [sent]}}),
        ("/recommend", {"history": [1001], "rules": {"pin": [sent]}}),
        ("/events", {"events": [{**event, "user_id": sent}]}),
        ("/events", {"events": [{**event, "item_id": sent}]}),
    ):
        assert client.post(path, json=body).status_code in (400, 422), body


@pytest.mark.parametrize("text", ["10_01", "01001", "+1001", "1001.0", "\u0661"])
def test_boosts_name_items_as_strictly(
    client: TestClient, untrained_bundle: Path, text: str
) -> None:
    rules = {"boost": {f"item:{text}": 2.0}}
    response = client.post("/recommend", json={"history": [1001], "rules": rules})
    assert response.status_code == 400
    with pytest.raises(InputError, match="an integer id in boost item:ID"):
        create_app(ModelStore(untrained_bundle, "cpu"), ServingOptions(rules=rules))


@pytest.mark.parametrize("name", ["top_k", "year_min", "year_max"])
@pytest.mark.parametrize("text", ["1_0", "+5", " 5", "05", "5.0", "\u0665"])
def test_numbers_are_written_as_strictly(client: TestClient, name: str, text: str) -> None:
    response = client.get("/recommend", params={"user_id": 101, name: text})
    assert response.status_code == 422


@pytest.mark.parametrize(
    "name",
    [
        *("a/b", "/a", "a/", "a//b", "/", "..", ".", "a/../b", "../admin/models", "C:\\x", "a b"),
        *("50%", "a+b", "#1", "q?x=1", "a&b=c", "a;b", "007", "ü-7", "日本", "\ufffd"),
        *("a\nb", "\n", "a\n", "a\tb", "\u2028"),
    ],
)
def test_any_string_is_an_id_once_it_is_encoded(string_client: TestClient, name: str) -> None:
    encoded = "".join(f"%{byte:02x}" for byte in name.encode())
    client = string_client
    for path in (f"/recommend?user_id={encoded}", f"/recommend?user_id={encoded}&with_titles=true"):
        assert client.get(path).json()["user_id"] == name
    event = {"event_id": "e", "user_id": name, "item_id": "i1", "type": "like"}
    event["timestamp"] = int(time.time()) - 60
    assert client.post("/events", json={"events": [event]}).json()["accepted"] == 1
    assert client.get(f"/features?user_id={encoded}").json()["user"]["num_events"] == 1
    forgotten = client.delete(f"/users/{encoded}")
    assert forgotten.status_code == 200
    assert forgotten.json()["user_id"] == name
    assert client.get(f"/features?user_id={encoded}").json()["user"]["num_events"] == 0
    # Of a bundle without text model, which is known after the id is.
    put = client.put(f"/items/{encoded}", json={"title": "x"})
    assert put.status_code == 400
    assert "expected a text encoder" in put.json()["detail"]


@pytest.mark.parametrize(
    "path", ["/users/u1/", "/users//u1", "/users/u1/x", "/users/%ff", "/users/"]
)
def test_a_path_that_is_no_encoded_id_forgets_nobody(string_client: TestClient, path: str) -> None:
    assert string_client.delete(path).status_code in (404, 422)
    assert string_client.get("/recommend?user_id=u1").json()["source"] == "retrieved"


@pytest.mark.parametrize("query", ["user_id=%ff", "user_id=%e6%97"])
def test_a_query_that_is_not_utf8_names_nobody(string_client: TestClient, query: str) -> None:
    assert string_client.get(f"/recommend?{query}").status_code == 422
