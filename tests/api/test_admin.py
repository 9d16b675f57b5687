"""Reloading and who may: a bundle takes another's place, a broken one does not."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.api.keys import read_keys
from recsys.api.models import ModelStore
from tests.conftest import write_untrained_bundle

LOCAL = {"client": ("127.0.0.1", 50000), "base_url": "http://localhost"}


@pytest.fixture
def root(untrained_bundle: Path, tmp_path: Path) -> Path:
    """Two bundles of 90 and of 80 users; ``latest`` names the first."""
    shutil.copytree(untrained_bundle, tmp_path / "first")
    other = write_untrained_bundle(
        tmp_path / "made", list(range(101, 181)), list(range(1001, 1031))
    )
    other.rename(tmp_path / "second")
    (tmp_path / "latest").symlink_to("first")
    return tmp_path


@pytest.fixture
def store(root: Path) -> ModelStore:
    return ModelStore(root / "latest", "cpu")


@pytest.fixture
def client(store: ModelStore) -> Iterator[TestClient]:
    with TestClient(create_app(store), **LOCAL) as client:
        yield client


def served(client: TestClient, user_id: int = 185) -> tuple[str, str]:
    answer = client.get(f"/recommend?user_id={user_id}").json()
    return answer["source"], answer["model_version"]


def test_the_newest_bundle_takes_over(client: TestClient, root: Path) -> None:
    source, version = served(client)
    (root / "next").symlink_to("second")
    (root / "next").replace(root / "latest")

    loaded = client.post("/admin/reload").json()["model_version"]

    assert source == "reranked"
    # User 185 is not among the 80 of the second; nor is the first one's cached answer given.
    assert served(client) == ("popular", loaded)
    assert loaded != version
    metrics = client.get("/metrics").text
    assert f'recsys_model_info{{version="{loaded}"}} 1.0' in metrics
    assert version not in metrics


def test_a_named_bundle_takes_over_and_back(client: TestClient) -> None:
    _, version = served(client)
    assert client.post("/admin/reload", json={"name": "second"}).status_code == 200
    assert served(client)[0] == "popular"
    assert client.post("/admin/reload", json={"name": "first"}).json()["model_version"] == version
    assert served(client) == ("reranked", version)


def test_a_bundle_truncated_anywhere_is_refused_and_the_old_one_goes_on(
    client: TestClient, root: Path
) -> None:
    before = served(client)
    files = [path for path in (root / "second").iterdir() if path.is_file()]
    assert len(files) > 6
    for file in files:
        content = file.read_bytes()
        for rest in (content[: len(content) // 2], None):
            file.unlink()
            if rest is not None:
                file.write_bytes(rest)

            response = client.post("/admin/reload", json={"name": "second"})

            assert response.status_code == 400
            assert response.json()["detail"].startswith("expected ")
            assert served(client) == before
        file.write_bytes(content)
    assert client.post("/admin/reload", json={"name": "second"}).status_code == 200


def test_a_bundle_with_another_type_of_ids_is_refused(
    client: TestClient, root: Path, string_id_bundle: Path
) -> None:
    shutil.copytree(string_id_bundle, root / "strings")
    response = client.post("/admin/reload", json={"name": "strings"})
    assert response.status_code == 400
    assert "user ids have the type" in response.json()["detail"]


@pytest.mark.parametrize("name", ["", ".", "..", "../first", "/etc", "no-such", "0" * 256, "a\0b"])
def test_only_bundles_beside_the_served_one_can_be_named(client: TestClient, name: str) -> None:
    assert client.post("/admin/reload", json={"name": name}).status_code == 400


def test_bundles_are_listed_newest_first_with_their_metrics(client: TestClient, root: Path) -> None:
    (root / "second" / "metrics.json").write_text(json.dumps({"n_users": 80}))
    (root / "half").mkdir()
    (root / "half" / "manifest.json").write_text("{")
    os.utime(root / "first" / "manifest.json", (1, 1))

    models = client.get("/admin/models").json()["models"]

    assert [(m["name"], m["serving"]) for m in models] == [("second", False), ("first", True)]
    assert models[0]["metrics"] == {"n_users": 80}


def test_without_keys_other_machines_are_refused(store: ModelStore) -> None:
    with TestClient(create_app(store), client=("192.0.2.7", 50000)) as client:
        assert client.post("/admin/reload").status_code == 403
        assert client.get("/admin/models").status_code == 403
        assert client.get("/recommend?user_id=101").status_code == 200


def test_with_keys_one_is_needed_from_everywhere(store: ModelStore, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    digests = [
        hashlib.sha256(key.encode()).hexdigest() for key in ("first key", "zweiter Schlüssel")
    ]
    file.write_text(f"# keys\n{digests[0]}  -\n\n{digests[1].upper()} # Ada's\n")
    for address in ("127.0.0.1", "192.0.2.7"):
        with TestClient(
            create_app(store, key_digests=read_keys(file)), client=(address, 1)
        ) as client:

            def status(headers: dict, client: TestClient = client) -> int:
                return client.get("/admin/models", headers=headers).status_code

            assert status({}) == status({"X-API-Key": "guess"}) == 401
            assert status({"X-API-Key": digests[0]}) == 401
            assert status({"X-API-Key": "first key"}) == 200
            assert status({"X-API-Key": "zweiter Schlüssel".encode()}) == 200
