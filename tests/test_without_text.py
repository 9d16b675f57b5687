"""Data without titles and descriptions: trained, served and exported without any text."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient

import recsys
from recsys.api.app import create_app
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.artifact import load_artifact
from recsys.data import files, generator
from recsys.errors import InputError
from recsys.export_events import export
from recsys.model import Model
from recsys.schema import Dataset

NEW = 9_001


@pytest.fixture(scope="module")
def data() -> Dataset:
    return generator.load(60, 50, 1500, seed=1)


@pytest.fixture(scope="module")
def fitted(data: Dataset) -> Model:
    """Of items of which genres alone are known."""
    items = data.items[["item_id", "genres"]]
    options = {"experiment": "quick", "split": "random", "reranking.epochs": 1, "processes": 1}
    return recsys.fit(data.interactions, items, progress=False, serve="stage2", **options)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('store')}/events.db"


def test_ids_are_not_encoded_and_genres_still_count(fitted: Model) -> None:
    artifact = load_artifact(fitted.path)
    assert artifact.manifest["text"] == {"name": "none", "fingerprint": "none"}
    assert artifact.manifest["config"]["text"]["name"] == "none"
    assert not artifact.text.any()
    assert artifact.attribute_names
    assert all(name.startswith("genre: ") for name in artifact.attribute_names)


def test_both_stages_rank_and_ids_stand_for_titles(fitted: Model, data: Dataset) -> None:
    found = fitted.recommend(data.interactions["user_id"].unique()[:5], top_k=10)
    assert len(found) == 50
    assert found["title"].tolist() == found["item_id"].astype("str").tolist()
    assert found["score"].notna().all()
    assert fitted.evaluate()["stage2"]["recall@100"] > 0


def test_a_question_in_words_is_one_clear_error(fitted: Model) -> None:
    with pytest.raises(InputError, match=r"trained without \(text=none\)"):
        fitted.recommend(text="a film about robots")


def test_it_is_served_with_new_items_and_refuses_words(
    fitted: Model, data: Dataset, store: str
) -> None:
    user = int(data.interactions["user_id"].iloc[0])
    app = create_app(ModelStore(fitted.path, "cpu"), ServingOptions(store_url=store))
    with TestClient(app, client=("127.0.0.1", 1234), base_url="http://localhost") as client:
        client.headers["X-Deadline-Ms"] = "60000"
        put = client.put(f"/items/{NEW}", json={"title": "Solaris", "genres": ["Drama"]})
        assert put.status_code == 200, put.text
        for options in ({}, {"explain": True}, {"diversity": 0.5}):
            params: dict[str, Any] = {"user_id": user, "top_k": 51, **options}
            answer = client.get("/recommend", params=params)
            assert answer.status_code == 200, answer.text
            assert answer.json()["source"] == "reranked"
            assert NEW in answer.json()["top_items"]
        for asked in (
            client.get("/recommend", params={"user_id": user, "query": "robots"}),
            client.post("/recommend", json={"query": "robots"}),
        ):
            assert asked.status_code == 400
            assert "trained without (text=none)" in asked.text


def test_its_export_has_titles_for_those_items_alone_that_have_one(
    fitted: Model, store: str, tmp_path: Path
) -> None:
    exported = export(store, fitted.path, tmp_path)
    titles = pd.read_parquet(exported.files["items"]).set_index("item_id")["title"]
    assert titles[titles != ""].to_dict() in ({}, {NEW: "Solaris"})
    assert (titles.drop(NEW, errors="ignore") == "").all()
    others = titles[titles == ""].reset_index()
    tables = pd.read_parquet(exported.files["interactions"]), others
    assert not files.load(*tables).has_text
