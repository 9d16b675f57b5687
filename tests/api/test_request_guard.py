"""Web pages, proxies and other machines: what each may ask for without a key, and with one."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.errors import InputError

KEY = {"X-API-Key": "Ada"}
DIGEST = hashlib.sha256(b"Ada").hexdigest()
EVENTS = {"events": [{"event_id": "a", "user_id": 101, "item_id": 1001, "type": "like"}]}
GUARDED: list[tuple[str, str, Any]] = [
    ("POST", "/admin/reload", None),
    ("GET", "/admin/models", None),
    ("POST", "/events", EVENTS),
    ("PUT", "/items/x", {"title": "x"}),
    ("DELETE", "/users/102", None),
    ("GET", "/features?user_id=101", None),
]
"""Of ``PUT /items`` the id is wrong, so that no text model is needed: who may, gets a 422."""
READS: list[tuple[str, str, Any]] = [
    ("GET", "/recommend?user_id=101", None),
    ("GET", "/recommend?user_id=101&with_titles=true", None),
    ("POST", "/recommend", {"user_ids": [101]}),
    ("GET", "/metrics", None),
]
HEALTH: list[tuple[str, str, Any]] = [("GET", "/health/live", None)]


@contextmanager
def asking(
    bundle: Path, folder: Path, address: str = "127.0.0.1", keys: tuple[str, ...] = (), **more: Any
) -> Iterator[TestClient]:
    options = ServingOptions(store_url=f"sqlite+aiosqlite:///{folder}/e.db", **more)
    app = create_app(ModelStore(bundle, "cpu"), options, keys)
    with TestClient(app, client=(address, 1), base_url="http://127.0.0.1:8000") as client:
        yield client


@pytest.fixture
def client(untrained_bundle: Path, tmp_path: Path) -> Iterator[TestClient]:
    with asking(untrained_bundle, tmp_path) as client:
        yield client


@pytest.fixture
def keyed(untrained_bundle: Path, tmp_path: Path) -> Iterator[TestClient]:
    with asking(untrained_bundle, tmp_path, keys=(DIGEST,)) as client:
        yield client


def statuses(
    client: TestClient, asked: list[tuple[str, str, Any]], headers: dict[str, str]
) -> list[int]:
    return [
        client.request(method, path, json=body, headers=headers).status_code
        for method, path, body in asked
    ]


def passes(client: TestClient, asked: list[tuple[str, str, Any]], headers: dict[str, str]) -> bool:
    return all(status in (200, 422) for status in statuses(client, asked, headers))


@pytest.mark.parametrize(
    "page",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://127.0.0.1:8000.evil.example"},
        {"Origin": "http://evil@127.0.0.1:8000"},
        {"Origin": "chrome-extension://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8000"},
    ],
)
def test_pages_of_other_sites_are_refused_with_a_key_and_without(
    client: TestClient, keyed: TestClient, page: dict[str, str]
) -> None:
    everything = [*GUARDED, *READS, *HEALTH]
    assert set(statuses(client, everything, page)) == {403}
    assert set(statuses(keyed, everything, page | KEY)) == {403}


@pytest.mark.parametrize(
    "page",
    [
        {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Host": "LOCALHOST:8000", "Origin": "http://localhost:8000"},
        {"Host": "localhost", "Origin": "https://localhost"},
        {"Host": "[::1]:80", "Origin": "http://[::1]"},
    ],
)
def test_its_own_pages_may_ask(client: TestClient, page: dict[str, str]) -> None:
    assert passes(client, [*GUARDED, *READS], page)


@pytest.mark.parametrize(
    "host",
    [
        "rebind.evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example:127.0.0.1",
        "evil@localhost",
        "[::1].evil.example",
        "0.0.0.0:8000",
        "2130706433",
        "192.168.1.7",
        "testserver",
        "",
    ],
)
def test_under_another_name_this_machine_is_not_asked(client: TestClient, host: str) -> None:
    assert set(statuses(client, [*GUARDED, *READS], {"Host": host})) == {403}
    # Which is how a page that has rebound its name looks to itself.
    page = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert set(statuses(client, GUARDED, page)) == {403}
    # It tells nothing, and probes have names of their own.
    assert passes(client, HEALTH, {"Host": host})


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1", "127.8.9.1:1", "[::1]"])
def test_any_loopback_name_is_this_machines(client: TestClient, host: str) -> None:
    assert passes(client, [*GUARDED, *READS], {"Host": host})


def test_more_names_can_be_allowed(untrained_bundle: Path, tmp_path: Path) -> None:
    with asking(untrained_bundle, tmp_path, allowed_hosts=["Recs.example.com"]) as client:
        assert passes(client, GUARDED, {"Host": "recs.example.com:80"})
        assert set(statuses(client, GUARDED, {"Host": "other.example.com"})) == {403}


@pytest.mark.parametrize("name", ["*", "http://a", "a:80", "a/b", ""])
def test_what_is_no_name_is_not_allowed(untrained_bundle: Path, name: str) -> None:
    models, options = ModelStore(untrained_bundle, "cpu"), ServingOptions(allowed_hosts=[name])
    with pytest.raises(InputError, match="in allowed_hosts"):
        create_app(models, options)


def test_with_a_key_names_do_not_matter(keyed: TestClient) -> None:
    assert passes(keyed, [*GUARDED, *READS], {"Host": "recs.example.com", **KEY})


@pytest.mark.parametrize(
    "header",
    [
        "Forwarded",
        "Via",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded",
        "X-Real-IP",
        "CF-Connecting-IP",
        "True-Client-IP",
        "X-Client-IP",
    ],
)
def test_through_a_proxy_nobody_is_on_this_machine(
    client: TestClient, keyed: TestClient, header: str
) -> None:
    proxied = {header: "127.0.0.1"}
    assert set(statuses(client, GUARDED, proxied)) == {403}
    told = client.get("/admin/models", headers=proxied).json()["detail"]
    assert header.lower() in told
    assert "set api_keys=<file>" in told
    assert passes(client, READS, proxied)
    assert passes(keyed, GUARDED, proxied | KEY)


def test_what_proxies_say_makes_nobody_local(untrained_bundle: Path, tmp_path: Path) -> None:
    with asking(untrained_bundle, tmp_path, address="192.0.2.1") as client:
        for header in ("X-Forwarded-For", "Forwarded"):
            assert set(statuses(client, GUARDED, {header: "127.0.0.1"})) == {403}
        # What is open to the network has no names.
        assert passes(client, READS, {"Host": "recs.example.com"})


@pytest.mark.parametrize(
    "type_",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "text/plain; application/json",
        "application/json, text/plain",
        "application/jsonp",
        "",
    ],
)
def test_what_changes_anything_is_sent_as_json(
    client: TestClient, keyed: TestClient, type_: str
) -> None:
    for method, path, _ in [*GUARDED, ("POST", "/recommend", None)]:
        if method != "GET":
            for content in (b"", b'{"a": 1}'):
                headers = {"Content-Type": type_}
                sent = client.request(method, path, content=content, headers=headers)
                assert sent.status_code == 415, (method, path, content)
                sent = keyed.request(method, path, content=content, headers=headers | KEY)
                assert sent.status_code == 415
    assert client.post("/admin/reload", content=b"{}").status_code == 415  # of no type


@pytest.mark.parametrize(
    "type_", ["application/json", "application/json; charset=utf-8", "Application/JSON"]
)
def test_json_is_json(client: TestClient, type_: str) -> None:
    headers = {"Content-Type": type_}
    assert client.post("/admin/reload", content=b"{}", headers=headers).status_code == 200
    assert client.post("/admin/reload", headers=headers).status_code == 200
    assert client.post("/admin/reload").status_code == 200
