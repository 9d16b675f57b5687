"""Guesses are slowed, and one client is one client however many names it gives itself."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.api.callers import client_of
from recsys.api.keys import Gate, read_keys
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.errors import InputError

DIGESTS = [hashlib.sha256(key).hexdigest() for key in (b"Ada", b"Bob")]


@pytest.fixture
def models(untrained_bundle: Path) -> ModelStore:
    return ModelStore(untrained_bundle, "cpu")


@contextmanager
def asking(
    models: ModelStore, address: str = "192.0.2.1", rate_limit: str | None = None
) -> Iterator[TestClient]:
    app = create_app(models, ServingOptions(rate_limit=rate_limit), DIGESTS)
    with TestClient(app, client=(address, 1)) as client:
        yield client


def status(client: TestClient, path: str, key: str | None = None) -> int:
    headers = {} if key is None else {"X-API-Key": key}
    return client.get(path, headers=headers).status_code


def test_after_ten_wrong_keys_a_right_one_is_not_looked_at(models: ModelStore) -> None:
    with asking(models) as client:
        assert status(client, "/admin/models", "Bob") == 200
        guesses = [status(client, "/features", f"guess {n}") for n in range(12)]
        assert guesses == [401] * 10 + [429] * 2
        refused = client.get("/admin/models", headers={"X-API-Key": "Ada"})
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        # Who has used a key here before, or needs none, is not shut out by that.
        assert status(client, "/admin/models", "Bob") == 200
        assert status(client, "/recommend?user_id=101") == 200
        assert status(client, "/admin/models") == 401


def test_a_guess_at_an_open_route_counts(models: ModelStore) -> None:
    with asking(models) as client:
        for number in range(10):
            assert status(client, "/recommend?user_id=101", f"guess {number}") == 200
        assert status(client, "/admin/models", "Ada") == 429


def test_without_keys_there_is_nothing_to_guess(models: ModelStore) -> None:
    with TestClient(create_app(models)) as client:
        for number in range(12):
            assert status(client, "/recommend?user_id=101", f"guess {number}") == 200


@pytest.mark.parametrize("keys", [[], ["", ""], ["Ada", "Bob"], ["Ada", ""], [""]])
def test_no_key_an_empty_one_or_several_are_none(keys: list[str]) -> None:
    gate = Gate([*DIGESTS, hashlib.sha256(b"").hexdigest()])
    assert gate.known([key.encode() for key in keys]) is None
    assert gate.known([b"Bob"]) == 1


@pytest.mark.parametrize("blank", ["", "\n", " ", "\r\n"])
def test_the_digest_of_no_key_is_refused(tmp_path: Path, blank: str) -> None:
    digest = hashlib.sha256(blank.encode()).hexdigest()
    (tmp_path / "keys").write_text(f"{DIGESTS[0]}\n{digest.upper()}  -\n")
    with pytest.raises(InputError, match="that of an empty key as number 2"):
        read_keys(tmp_path / "keys", {})
    with pytest.raises(InputError, match="that of an empty key as number 1"):
        read_keys(None, {"RECSYS_API_KEYS": digest})


@pytest.mark.parametrize(
    "path", ["/recommend?user_id=101", "/features", "/admin/models", "/metrics", "/docs", "/x"]
)
def test_every_route_but_health_is_limited(models: ModelStore, path: str) -> None:
    with asking(models, rate_limit="2/minute") as client:
        assert 429 not in [status(client, path) for _ in range(2)]
        assert [status(client, path), status(client, "/recommend?user_id=101")] == [429, 429]
        assert [status(client, "/health/live") for _ in range(5)] == [200] * 5
        assert status(client, "/admin/models", "Ada") == 200


def test_one_client_has_one_rate_whatever_it_says_of_itself(models: ModelStore) -> None:
    app = create_app(models, ServingOptions(rate_limit="3/minute"), DIGESTS)
    named = [{"X-Forwarded-For": f"192.0.2.{n}"} for n in range(3)]
    named += [{"X-API-Key": f"guess {n}"} for n in range(3)]
    with TestClient(app, client=("2001:db8:1:2::1", 1)):  # for its start
        clients = [TestClient(app, client=(f"2001:db8:1:2::{n}", 1)) for n in range(1, 7)]
        asked = [
            client.get("/recommend?user_id=101", headers=headers).status_code
            for client, headers in zip(clients, named, strict=True)
        ]
        assert asked == [200, 200, 200, 429, 429, 429]
        other = TestClient(app, client=("2001:db8:1:3::1", 1))
        assert other.get("/recommend?user_id=101").status_code == 200


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_addresses_of_one_client(one: str, other: str, same: bool) -> None:
    assert (client_of(one) == client_of(other)) is same
