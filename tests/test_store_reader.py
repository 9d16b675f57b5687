"""Batch and Python give the lists that HTTP gives for the same bundle and the same store."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

import recsys
from recsys import batch
from recsys.api.app import create_app
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.cli import CONFIG_DIR
from recsys.errors import InputError
from recsys.overrides import HYDRA_VERSION
from recsys.store_reader import StoreReader, own_store
from tests.conftest import write_untrained_bundle

RULES = {"genres_none": ["Comedy"], "caps": {"year": 6}}
NEW_ITEMS = range(5001, 5041)
TOP_K = 25
# Known ones, one without anything of a log, and one of whom nothing is known.
USERS = [*range(101, 112), 7, 8]
NEWCOMER, FORGOTTEN = 7, 103


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('store')}/shop #1.db"


@pytest.fixture(scope="module")
def client(text_bundle: Path, url: str) -> Iterator[TestClient]:
    """A server after events, a deletion and new items."""
    # A list that is kept does not know what has become popular since.
    options = ServingOptions(store_url=url, rules=RULES, cache_mb=0)
    headers = {"X-Deadline-Ms": "60000"}
    app = create_app(ModelStore(text_bundle, "cpu"), options)
    with TestClient(
        app, client=("127.0.0.1", 1), base_url="http://localhost", headers=headers
    ) as asking:
        for number in NEW_ITEMS:
            item = {"title": f"Film {number}", "genres": ["Drama"], "year": 1985 + number % 15}
            assert asking.put(f"/items/{number}", json=item).status_code == 200
        say(asking, 101, "like", 1003, 1010, 5001)
        say(asking, 102, "dismiss", 1004, 1012)
        say(asking, NEWCOMER, "rating", 1005, 1020, value=4.0)
        assert asking.delete(f"/users/{FORGOTTEN}").is_success
        yield asking


def say(client: TestClient, user: int, kind: str, *items: int, **more: Any) -> None:
    events = [
        {"event_id": f"{user}-{item}-{kind}", "user_id": user, "item_id": item, "type": kind}
        for item in items
    ]
    response = client.post("/events", json={"events": [{**one, **more} for one in events]})
    assert response.status_code == 200, response.text


def answers(client: TestClient, users: list[int] = USERS) -> dict[int, dict[str, Any]]:
    """Of each user, once popularity knows the latest events."""
    found = {}
    for user in users:
        query = f"/recommend?user_id={user}&top_k={TOP_K}&with_titles=true"
        response = client.get(query)
        assert response.status_code == 200, response.text
        found[user] = response.json()
    return found


def assert_same(client: TestClient, rows: pd.DataFrame, users: list[int] = USERS) -> None:
    """Popularity takes a few seconds to know of events where a server goes on."""
    lists = {
        user: (own["item_id"].tolist(), own["title"].tolist(), own["source"].unique().tolist())
        for user, own in rows.groupby("user_id")
    }
    end = time.monotonic() + 30
    while True:
        http = {
            user: (one["top_items"], one["titles"], [one["source"]])
            for user, one in answers(client, users).items()
        }
        if http == lists or time.monotonic() > end:
            break
        time.sleep(0.5)
    assert lists == http


def run_batch(bundle: Path, output: Path, **settings: Any) -> pd.DataFrame:
    with initialize_config_dir(str(CONFIG_DIR), version_base=HYDRA_VERSION):
        config = compose("batch")
    with open_dict(config):
        config.merge_with(
            {
                **{"bundle": str(bundle), "output": str(output), "device": "cpu", "top_k": TOP_K},
                **{"users": ",".join(map(str, USERS)), "with_titles": True, **settings},
            }
        )
    batch.main(config)
    readers = {
        ".parquet": pd.read_parquet,
        ".csv": pd.read_csv,
        ".jsonl": lambda path: pd.read_json(path, lines=True),
    }
    return readers[output.suffix](output)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_rows_of_a_batch_are_the_lists_of_http(
    client: TestClient, text_bundle: Path, url: str, tmp_path: Path, suffix: str
) -> None:
    rows = run_batch(text_bundle, tmp_path / f"recs{suffix}", store=url, rules=RULES)
    assert list(rows) == ["user_id", "rank", "item_id", "score", "source", "title"]
    assert_same(client, rows)
    assert (rows.groupby("user_id")["rank"].agg(list).map(lambda own: own[0]) == 1).all()
    lists = rows.groupby("user_id")["item_id"].agg(set)
    assert not lists[101] & {1003, 1010, 5001}
    assert not lists[102] & {1004, 1012}
    # At the places that a server has for them.
    reserved = rows.loc[rows["rank"].isin([11, 14, 17])]
    assert reserved["item_id"].isin(NEW_ITEMS).all()
    sources = rows.groupby("user_id")["source"].first()
    assert sources[[101, NEWCOMER, FORGOTTEN, 8]].tolist() == [
        *("reranked", "reranked", "popular", "popular")
    ]


def test_without_a_store_a_batch_is_as_of_training(
    client: TestClient, text_bundle: Path, url: str, tmp_path: Path
) -> None:
    rows = run_batch(text_bundle, tmp_path / "recs.parquet", with_titles=False)
    assert list(rows) == ["user_id", "rank", "item_id", "score", "source"]
    assert not (rows["item_id"] > 5000).any()
    assert set(rows.loc[rows["user_id"] == NEWCOMER, "source"]) == {"popular"}


def test_all_users_are_those_of_the_store_too_and_none_that_was_deleted(
    client: TestClient, text_bundle: Path, url: str, tmp_path: Path
) -> None:
    rows = run_batch(text_bundle, tmp_path / "recs.parquet", store=url, users="all")
    assert set(rows["user_id"]) == {*range(101, 191), NEWCOMER} - {FORGOTTEN}


def test_a_loaded_model_knows_what_comes_in(
    client: TestClient, text_bundle: Path, url: str
) -> None:
    model = recsys.load(text_bundle, "cpu", store=url)
    assert_same(client, model.recommend(USERS, TOP_K, rules=RULES))
    say(client, 104, "like", 1021, 1022)
    say(client, 8, "purchase", 1017)
    item = {"title": "A late one", "genres": ["Drama"], "year": 1995}
    assert client.put("/items/5009", json=item).status_code == 200
    rows = model.recommend(USERS, TOP_K, rules=RULES)
    assert_same(client, rows)
    assert not {1021, 1022} & set(rows.loc[rows["user_id"] == 104, "item_id"])
    late = model.recommend(USERS, 80, rules=RULES)
    assert "A late one" in set(late["title"])
    by_history = model.recommend(history=[1003, 5001], top_k=5, rules=RULES)
    answer = client.post("/recommend", json={"history": [1003, 5001], "top_k": 5}).json()
    assert by_history["item_id"].tolist() == answer["results"][0]["top_items"]
    client.delete("/users/8")


def test_it_reads_where_an_event_loop_runs(client: TestClient, text_bundle: Path, url: str) -> None:
    import asyncio

    async def cell() -> int:
        return len(recsys.load(text_bundle, "cpu", store=url).recommend(101, 3))

    assert asyncio.run(cell()) == 3


def test_the_store_beside_the_bundle(tmp_path: Path) -> None:
    bundle = write_untrained_bundle(tmp_path, list(range(101, 131)), list(range(1001, 1031)))
    options = ServingOptions(store_url="auto")
    with TestClient(
        create_app(ModelStore(bundle, "cpu"), options),
        client=("127.0.0.1", 1),
        base_url="http://localhost",
    ) as client:
        say(client, 101, "like", 1003)
    assert own_store(bundle).is_file()
    found = recsys.load(bundle, "cpu", store="auto").recommend(101, 30)
    assert 1003 not in set(found["item_id"])
    rows = run_batch(bundle, tmp_path / "recs.csv", store="auto", users="101", top_k=30)
    assert rows["item_id"].tolist() == found["item_id"].tolist()


def test_a_store_that_is_not_there_or_of_another_data_set_is_refused(
    client: TestClient, text_bundle: Path, url: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"expected an event store at .*found no such file"):
        recsys.load(text_bundle, "cpu", store=f"sqlite+aiosqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()
    other = write_untrained_bundle(tmp_path, list(range(101, 111)), list(range(1, 31)))
    with pytest.raises(InputError, match="of the bundle's data set"):
        run_batch(other, tmp_path / "recs.parquet", store=url)
    strings = write_untrained_bundle(tmp_path / "s", ["a", "b"], [f"i{n}" for n in range(20)])
    with pytest.raises(InputError, match="a store with the bundle's type of user ids"):
        recsys.load(strings, "cpu", store=url)
    assert not (tmp_path / "recs.parquet").exists()


def test_a_store_of_a_former_state_is_told_as_such(untrained_bundle: Path, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/e.db"
    options = ServingOptions(store_url=url)

    def serve_and_say(*items: int) -> None:
        app = create_app(ModelStore(untrained_bundle, "cpu"), options)
        with TestClient(app, client=("127.0.0.1", 1), base_url="http://localhost") as client:
            say(client, 101, "like", *items)

    serve_and_say(1003, 1004)
    model = recsys.load(untrained_bundle, "cpu", store=url)
    for file in tmp_path.glob("e.db*"):
        file.unlink()
    serve_and_say(1005)
    with pytest.raises(InputError, match="load the model again"):
        model.recommend(101)


@pytest.mark.parametrize("name", ["recs.pq", "recs", "recs.json", "recs.csv.gz"])
def test_an_output_of_another_ending_is_refused_at_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.parquet, \.csv or \.jsonl; found " + name):
        run_batch(tmp_path / "no bundle", tmp_path / name)


def test_rules_of_a_batch_are_checked(untrained_bundle: Path, tmp_path: Path) -> None:
    for rules, message in (
        ({"genre": ["Drama"]}, "expected rules of"),
        ({"block": ["a"]}, "an integer for each item id"),
    ):
        with pytest.raises(InputError, match=message):
            run_batch(untrained_bundle, tmp_path / "recs.csv", rules=rules)


def test_json_lines_hold_ids_as_they_are(string_id_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "recs.jsonl"
    run_batch(string_id_bundle, output, users="u1,ü2", top_k=2)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [(row["user_id"], row["rank"]) for row in rows] == [
        *(("u1", 1), ("u1", 2), ("ü2", 1), ("ü2", 2))
    ]
    assert rows[0]["item_id"].startswith("i")


def test_places_of_a_reader_are_checked(untrained_recommender, untrained_bundle: Path) -> None:
    with pytest.raises(InputError, match=r"exploration\.places"):
        StoreReader(untrained_recommender, "auto", untrained_bundle, places=[0])
