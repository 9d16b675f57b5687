"""Where keys come from, and what may be kept for those who hold one."""

import hashlib
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.api.keys import read_keys
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.errors import InputError

ADA, BOB = (hashlib.sha256(name).hexdigest() for name in (b"Ada", b"Bob"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("secret\n", "64 hex digits"), ("# none\n", "found none"), (None, "no such file")],
)
def test_a_bad_file_of_keys_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "keys.txt"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_keys(file, {})


def test_the_file_and_the_environment_both_hold_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(ADA)
    environment = {"RECSYS_API_KEYS": f"{BOB.upper()}, {ADA}"}
    assert read_keys(None, {}) == []
    assert read_keys(None, environment) == [BOB, ADA]
    assert read_keys(file, environment) == [ADA, BOB, ADA]


@pytest.mark.parametrize(
    ("value", "message"), [("", "a key in RECSYS_API_KEYS"), (f"{ADA},Bob", "as number 2")]
)
def test_a_bad_variable_is_refused(value: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_keys(None, {"RECSYS_API_KEYS": value})


def test_recommendations_can_be_kept_for_holders_of_a_key(models: ModelStore) -> None:
    app = create_app(models, ServingOptions(keys_for_reads=True), [ADA])
    with TestClient(app) as client:

        def statuses(headers: dict[str, str]) -> list[int]:
            one = client.get("/recommend?user_id=101", headers=headers)
            many = client.post("/recommend", json={"user_ids": [101]}, headers=headers)
            return [one.status_code, many.status_code]

        assert statuses({"X-API-Key": "Ada"}) == [200, 200]
        # Nor does the cache, which holds user 101's list by now, give it to others.
        assert statuses({}) == statuses({"X-API-Key": "Bob"}) == [401, 401]
        assert client.get("/health/ready").status_code == 200
        described = client.get("/openapi.json").json()["paths"]["/recommend"]
        assert all("401" in described[method]["responses"] for method in ("get", "post"))


def test_keys_that_nobody_has_given_out_cannot_be_asked_for(models: ModelStore) -> None:
    with pytest.raises(InputError, match="expected API keys, since keys_for_reads is set"):
        create_app(models, ServingOptions(keys_for_reads=True))
