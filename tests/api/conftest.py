"""An application around an untrained bundle, and a client of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.api.models import ModelStore


@pytest.fixture
def models(untrained_bundle: Path) -> ModelStore:
    return ModelStore(untrained_bundle, "cpu")


@pytest.fixture
def client(models: ModelStore) -> Iterator[TestClient]:
    with TestClient(
        create_app(models), client=("127.0.0.1", 1), base_url="http://localhost"
    ) as client:
        yield client
