"""Rules, wishes, explanations, events and items by the HTTP application, in one process."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.api.service import Service
from recsys.data.catalog import item_text
from recsys.errors import InputError
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.text.encoder import TextEncoder
from recsys.text.from_config import encoder_from_config

PATIENT = {"X-Deadline-Ms": "60000"}


@contextmanager
def asking(bundle: Path, host: str = "127.0.0.1", **options: Any) -> Iterator[TestClient]:
    app = create_app(ModelStore(bundle, "cpu"), ServingOptions(**options))
    with TestClient(
        app, client=(host, 1234), base_url="http://localhost", headers=PATIENT
    ) as client:
        yield client


@pytest.fixture
def client(untrained_bundle: Path, tmp_path: Path) -> Iterator[TestClient]:
    with asking(untrained_bundle, store_url=f"sqlite+aiosqlite:///{tmp_path}/e.db") as client:
        yield client


@pytest.fixture
def text_client(text_bundle: Path, tmp_path: Path) -> Iterator[TestClient]:
    with asking(text_bundle, store_url=f"sqlite+aiosqlite:///{tmp_path}/e.db") as client:
        yield client


def listed(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/recommend", json=body)
    assert response.status_code == 200, response.text
    (found,) = response.json()["results"]
    return found


def like(client: TestClient, user_id: int, *item_ids: int, type_: str = "like") -> None:
    events = [
        {"event_id": f"{user_id}-{item}-{type_}", "user_id": user_id, "item_id": item}
        for item in item_ids
    ]
    response = client.post("/events", json={"events": [{**one, "type": type_} for one in events]})
    assert response.status_code == 200, response.text


def test_a_request_sets_rules(client: TestClient) -> None:
    by_get = client.get("/recommend?user_id=104&top_k=30&genre=comedy&year_min=1985").json()
    by_post = listed(
        client, user_ids=[104], top_k=30, rules={"genres_any": ["Comedy"], "year_min": 1985}
    )
    assert by_get["top_items"] == by_post["top_items"]
    # Every third film is a comedy, and of twenty years three quarters are late enough.
    numbers = [item - 1001 for item in by_get["top_items"]]
    assert numbers
    assert all(n % 3 == 1 and 1980 + n % 20 >= 1985 for n in numbers)
    assert "pass the filters" in by_get["notes"][0]
    plain = client.get("/recommend?user_id=104&top_k=30").json()
    assert set(by_get["top_items"]) < set(plain["top_items"])


def test_what_the_server_blocks_no_request_unblocks(untrained_bundle: Path) -> None:
    with asking(untrained_bundle, rules={"block": [1005], "caps": {"genre": 9}}) as client:
        found = listed(client, user_ids=[104], top_k=40, rules={"block": [1006], "caps": {}})
        assert not {1005, 1006} & set(found["top_items"])
        assert 1005 not in client.get("/recommend?user_id=104&top_k=40").json()["top_items"]


def test_pins_come_first_and_say_so(client: TestClient) -> None:
    rules = {"pin": [1030, 1029], "boost": {"item:1028": 1000.0}}
    found = listed(client, history=[1001], top_k=3, rules=rules, explain=True)
    assert found["top_items"] == [1030, 1029, 1028]
    assert [one["rule"] for one in found["explanations"]] == ["pin", "pin", "boost item:1028"]


@pytest.mark.parametrize(
    ("rules", "status"),
    [
        ({"colour": 1}, 422),
        ({"caps": {"genre": 0}}, 422),
        ({"diversity": 2}, 422),
        ({"year_min": 2000, "year_max": 1990}, 400),
        ({"block": ["x"]}, 400),
        ({"boost": {"price:1": 2}}, 422),
    ],
)
def test_bad_rules_are_refused(client: TestClient, rules: dict[str, Any], status: int) -> None:
    response = client.post("/recommend", json={"user_ids": [101], "rules": rules})
    assert response.status_code == status, response.text


def test_bad_rules_of_the_server_are_refused_at_the_start(untrained_bundle: Path) -> None:
    for rules in ({"block": ["x"]}, {"colour": 1}):
        with pytest.raises(InputError), asking(untrained_bundle, rules=rules):
            pass


def test_lists_under_rules_are_cached_apart(client: TestClient) -> None:
    first = client.get("/recommend?user_id=104&genre=Drama").json()
    other = client.get("/recommend?user_id=104&genre=Comedy").json()
    assert first["top_items"] != other["top_items"]
    assert client.get("/recommend?user_id=104&genre=Drama").json() == first
    assert 'recsys_cache_requests_total{result="hit"} 1.0' in client.get("/metrics").text


def test_explanations_name_events_of_the_history_and_ranks(client: TestClient) -> None:
    like(client, 104, 1020)
    found = client.get("/recommend?user_id=104&top_k=4&explain=true").json()
    history = {1005, 1007, 1009, 1011, 1020}
    assert [one["item_id"] for one in found["explanations"]] == found["top_items"]
    assert [one["rank"] for one in found["explanations"]] == [1, 2, 3, 4]
    ranks = [one["retrieved_rank"] for one in found["explanations"]]
    assert len(set(ranks)) == 4
    assert all(1 <= rank <= 12 for rank in ranks)
    reasons = [reason for one in found["explanations"] for reason in one["because"]]
    assert reasons
    assert {reason["item_id"] for reason in reasons} <= history
    assert all(reason["contribution"] > 0 for reason in reasons)
    popular = client.get("/recommend?user_id=7&top_k=2&explain=true").json()
    assert [one["because"] for one in popular["explanations"]] == [[], []]


def test_context_makes_a_list_for_somebody_new(client: TestClient) -> None:
    assert listed(client, context={"age": 20})["source"] == "reranked"
    for context in ({"height": 3}, {"age": "old"}):
        assert client.post("/recommend", json={"context": context}).status_code == 400


def test_a_text_finds_items_and_without_a_text_model_that_is_said(
    text_client: TestClient, client: TestClient
) -> None:
    query = item_text("Film 1007", 1986, "Drama|War")
    found = listed(text_client, query=query, top_k=5)
    assert found["source"] == "retrieved"
    assert 1007 in found["top_items"]
    by_get = text_client.get(f"/recommend?user_id=104&query={query}&top_k=20").json()
    assert by_get["source"] == "retrieved"
    assert 1007 not in by_get["top_items"]  # it is in the user's history
    response = client.post("/recommend", json={"query": query})
    # Not 503: it would be no use to come again.
    assert response.status_code == 400
    assert "expected a text encoder" in response.json()["detail"]


def test_an_item_is_put_shown_and_found_and_its_text_stays_text(text_client: TestClient) -> None:
    title = '<script>alert("x")</script> \u202e\U0001f98a \'; DROP TABLE recsys_items; --'
    body = {"title": title, "genres": ["Opera"], "year": 1999, "description": "d" * 20_000}
    response = text_client.put("/items/5001", json=body)
    assert response.status_code == 200, response.text
    assert response.json()["title"] == title
    found = listed(text_client, query=title, with_titles=True, rules={"genres_any": ["opera"]})
    assert (found["top_items"], found["titles"]) == ([5001], [title])
    like(text_client, 8, 5001)
    assert 5001 not in text_client.get("/recommend?user_id=8&top_k=40").json()["top_items"]
    # Put again, it is another film.
    response = text_client.put("/items/5001", json={"title": "Calm", "genres": ["War"]})
    assert response.status_code == 200
    assert listed(text_client, query="x", rules={"genres_any": ["opera"]})["top_items"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"title": ""},
        {"title": "a\0b"},
        {"title": "x", "release_date": "1999-02-31"},
        {"title": "x", "genres": ["a|b"]},
        {"title": "x", "year": 0},
        {"title": "x", "colour": 1},
    ],
)
def test_items_that_cannot_be_are_refused(text_client: TestClient, body: dict[str, Any]) -> None:
    assert text_client.put("/items/5001", json=body).status_code in (400, 422)
    assert text_client.put("/items/x", json={"title": "x"}).status_code == 422


def test_new_items_are_explored_with_their_propensities(text_bundle: Path, tmp_path: Path) -> None:
    options = {"exploration_epsilon": 0.5, "exploration_slots": 1}
    url = f"sqlite+aiosqlite:///{tmp_path}/e.db"
    with asking(text_bundle, store_url=url, **options) as client:
        before = client.get("/recommend?user_id=104&top_k=5").json()
        assert before["propensities"] == [1.0] * 5
        assert client.put("/items/5001", json={"title": "New"}).status_code == 200
        seen = [client.get("/recommend?user_id=104&top_k=5").json() for _ in range(60)]
        explored = [one for one in seen if one["top_items"][-1] == 5001]
        assert 10 < len(explored) < 50
        assert {tuple(one["propensities"]) for one in seen} == {(1.0, 1.0, 1.0, 1.0, 0.5)}
        assert len({tuple(one["top_items"][:4]) for one in seen}) == 1
        # Whoever has seen it is not shown it again.
        like(client, 104, 5001, type_="dismiss")
        gone = client.get("/recommend?user_id=104&top_k=5").json()
        assert gone["propensities"] == [1.0] * 5


def put_new_items(client: TestClient) -> None:
    titles = "Trench Ballroom Comet Harvest Sleuth Tundra Circus Harbour Alibi Waltz Ghost Race"
    for number, title in enumerate(titles.split(), 5001):
        assert client.put(f"/items/{number}", json={"title": title}).status_code == 200


def test_long_lists_have_places_for_new_items(text_bundle: Path, tmp_path: Path) -> None:
    url, path = f"sqlite+aiosqlite:///{tmp_path}/e.db", "/recommend?user_id=104&top_k=20"
    with asking(text_bundle, store_url=url) as client:
        before = client.get(path).json()
        assert "propensities" not in before
        put_new_items(client)
        found = client.get(path).json()
        assert found["propensities"] == [1.0] * 20
        assert client.get(path).json() == found  # from the cache
        assert 'recsys_cache_requests_total{result="hit"} 1.0' in client.get("/metrics").text
        told = listed(client, user_ids=[104], top_k=20, explain=True)
        short = client.get("/recommend?user_id=104&top_k=19").json()
        like(client, 104, found["top_items"][10], type_="dismiss")
        after = client.get(path).json()
    with asking(text_bundle, store_url=url, exploration_places=[]) as client:
        plain = client.get(path).json()
    assert told["top_items"] == found["top_items"]
    put_in = [one["rank"] for one in told["explanations"] if one.get("rule") == "exploration"]
    assert put_in[0] == 11
    assert set(put_in) <= {11, 14, 17}
    new = {found["top_items"][rank - 1] for rank in put_in}
    assert all(item > 5000 and item not in plain["top_items"] for item in new)
    others = [item for item in found["top_items"] if item not in new]
    assert others == [item for item in plain["top_items"] if item in others]
    assert "propensities" not in short
    assert "propensities" not in plain
    assert found["top_items"][10] not in after["top_items"]


def test_plain_requests_take_the_short_way_unless_items_are_drawn(
    text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, long_ways = Service.body_of, []

    async def noted(self: Service, request: Request, **options: Any) -> bytes:
        long_ways.append(request.top_k)
        return await own(self, request, **options)

    monkeypatch.setattr(Service, "body_of", noted)
    url = f"sqlite+aiosqlite:///{tmp_path}/e.db"
    options = {"exploration_epsilon": 0.5, "deadline_ms": 60_000}
    with asking(text_bundle, store_url=url, **options) as client:
        client.headers.pop("X-Deadline-Ms")  # with which no request is plain
        for taken in ([], [5]):
            for top_k in (5, 20):
                assert client.get(f"/recommend?user_id=104&top_k={top_k}").status_code == 200
            assert long_ways == taken
            put_new_items(client)


def test_exploration_leaves_pins_and_caps_alone(text_bundle: Path, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/e.db"
    with asking(text_bundle, store_url=url, exploration_epsilon=0.9) as client:
        new = {"title": "New", "genres": ["Drama"]}
        assert client.put("/items/5001", json=new).status_code == 200
        for rules, top_k in (({"pin": [1001, 1002]}, 2), ({"caps": {"genre": 3}}, 6)):
            for _ in range(20):
                found = listed(client, history=[1020], top_k=top_k, rules=rules)
                assert 5001 not in found["top_items"]
                assert found["propensities"] == [1.0] * top_k
        assert any(5001 in listed(client, history=[1020], top_k=6)["top_items"] for _ in range(50))


def test_the_text_model_is_loaded_before_the_server_is_ready_where_that_is_wanted(
    text_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def load(config: Any, model: str | None) -> TextEncoder:
        loaded.append(config)
        return encoder_from_config(config, model)

    monkeypatch.setattr("recsys.text.from_config.encoder_from_config", load)
    for preload in (False, True):
        with asking(text_bundle, preload_text_model=preload) as client:
            assert len(loaded) == (2 if preload else 0)
            found = listed(client, query="war")
            assert "degraded" not in found
    assert len(loaded) == 2


def test_a_text_model_that_is_missing_stops_no_server(untrained_bundle: Path) -> None:
    with asking(untrained_bundle, preload_text_model=True) as client:
        assert client.get("/recommend?user_id=104").status_code == 200


@pytest.mark.parametrize("user", [9999, 104], ids=["new", "has dismissed nearly everything"])
def test_who_tells_of_no_taste_gets_what_is_popular_now_and_not_when_last_asked(
    untrained_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    monkeypatch.setattr("recsys.api.live_state._SECONDS_BETWEEN_REFRESHES", 0.0)
    with asking(untrained_bundle, store_url=f"sqlite+aiosqlite:///{tmp_path}/e.db") as client:
        path = f"/recommend?user_id={user}&top_k=40"
        if user == 104:
            had = set(range(1001, 1031)) - set(client.get(path).json()["top_items"])
            like(client, user, *sorted(had | set(range(1001, 1020))), type_="dismiss")
        before = client.get(path).json()["top_items"]
        assert len(before) > 1
        for fan in range(8000, 8020):
            like(client, fan, before[-1])
        until = time.monotonic() + 30
        while client.get(path).json()["top_items"][0] != before[-1]:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert client.get(path).json()["top_items"][0] == before[-1]
        if user == 9999:  # whose lists are kept
            told = client.get("/metrics").text
            assert 'recsys_cache_requests_total{result="hit"} 0.0' not in told


def test_popularity_of_a_model_loaded_again_is_of_no_version_that_was_there(
    untrained_bundle: Path,
) -> None:
    """Else a list that was cached before would come back."""
    first, again = (Recommender.load(untrained_bundle).popularity for _ in range(2))
    assert first.version != again.version
    first.refresh()
    before = {first.version, again.version}
    again.refresh()
    assert again.version not in before


def test_features_are_those_of_log_and_events(client: TestClient) -> None:
    before = client.get("/features?user_id=104&item_id=1020").json()
    assert before["user"]["num_events"] == 4
    assert before["user"]["mean_value"] == 5  # three ratings in the log
    rating = {"event_id": "r", "user_id": 104, "item_id": 1020, "type": "rating", "value": 4}
    old = {**rating, "timestamp": before["as_of"] - 86_400}
    assert client.post("/events", json={"events": [old]}).status_code == 200
    after = client.get("/features?user_id=104").json()
    assert "item" not in after
    assert after["user"]["num_events"] == 5
    assert after["user"]["mean_value"] == (3 * 5 + 4) / 4
    assert after["user"]["days_since_last"] == pytest.approx(1, abs=0.01)
    for _ in range(100):  # the event is tailed
        item = client.get("/features?item_id=1020").json()["item"]
        if item["num_events"] > before["item"]["num_events"]:
            break
    assert item["num_events"] == before["item"]["num_events"] + 1
    assert client.get("/features?user_id=x").status_code == 422
    unknown = client.get("/features?item_id=99999&user_id=9").json()
    assert unknown["item"]["num_events"] == unknown["user"]["num_events"] == 0
    assert unknown["item"]["mean_value"] is unknown["user"]["mean_value"] is None


def test_only_this_machine_or_a_key_changes_anything_or_reads_features(
    untrained_bundle: Path, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/e.db"
    event = {"event_id": "a", "user_id": 1, "item_id": 1001, "type": "like"}
    with asking(untrained_bundle, host="192.0.2.1", store_url=url) as client:
        answers = [
            client.post("/events", json={"events": [event]}),
            client.put("/items/1", json={"title": "x"}),
            client.delete("/users/1"),
            client.get("/features?user_id=101"),  # tells of a user's life
        ]
        assert [answer.status_code for answer in answers] == [403] * 4
        assert client.get("/recommend?user_id=101").status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"type": "sneeze"},
        {"event_id": ""},
        {"user_id": "u"},
        {"item_id": 1.5},
        {"timestamp": 0},
        {"value": "high"},
        {"event_id": "a\0"},
    ],
)
def test_events_that_cannot_be_are_refused(client: TestClient, change: dict[str, Any]) -> None:
    event = {"event_id": "a", "user_id": 1, "item_id": 1001, "type": "like", **change}
    good = {"event_id": "good", "user_id": 1, "item_id": 1001, "type": "like"}
    response = client.post("/events", json={"events": [good, event]})
    assert response.status_code in (400, 422), response.text
    # All are stored or none.
    assert client.post("/events", json={"events": [good]}).json()["accepted"] == 1


def test_without_a_store_there_are_no_such_routes(untrained_bundle: Path) -> None:
    with asking(untrained_bundle) as client:
        assert client.post("/events", json={"events": []}).status_code == 404
        assert client.get("/recommend?user_id=101").status_code == 200


def test_events_older_than_their_retention_are_forgotten(
    untrained_bundle: Path, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/e.db"
    with asking(untrained_bundle, store_url=url, retention_days=30) as client:
        old = {"event_id": "o", "user_id": 7, "item_id": 1003, "type": "like"}
        stored = {"events": [{**old, "timestamp": 1_600_000_000}]}
        assert client.post("/events", json=stored).status_code == 200
        until = time.monotonic() + 10
        # The cache, too, has nothing of it any more.
        while client.get("/recommend?user_id=7").json()["source"] != "popular":
            assert time.monotonic() < until
            time.sleep(0.05)
        # Its id, too: what is sent again counts as new.
        assert client.post("/events", json=stored).json()["accepted"] == 1


@pytest.mark.parametrize("user", ["\0", "u\0", "\u672c" * 200, "\U0001f600" * 130])
def test_an_id_that_cannot_be_stored_is_nobody_at_once(
    string_id_bundle: Path, tmp_path: Path, user: str
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/e.db"
    with asking(string_id_bundle, store_url=url) as client:
        found = client.get("/recommend", params={"user_id": user, "top_k": 3})
        assert found.status_code == 200
        assert found.json()["source"] == "popular"
        assert "degraded" not in found.json()
        assert "degraded" not in client.get("/recommend?user_id=u3").json()


def test_a_restored_store_is_read_anew(untrained_bundle: Path, tmp_path: Path) -> None:
    """Nothing is known any more of what it does not have; what is stored from then on counts."""
    file = tmp_path / "e.db"
    with asking(untrained_bundle, store_url=f"sqlite+aiosqlite:///{file}") as client:
        before = client.get("/recommend?user_id=7&top_k=30").json()
        like(client, 7, 1020, 1021)
        known = client.get("/recommend?user_id=7&top_k=30").json()
        assert known["source"] == "reranked"
        for one in tmp_path.glob("e.db*"):
            one.unlink()
        body = {"event_id": "again", "user_id": 8, "item_id": 1003, "type": "like"}
        until = time.monotonic() + 30
        while client.post("/events", json={"events": [body]}).status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        found = client.get("/recommend?user_id=7&top_k=30").json()
        assert found["source"] == "popular"
        assert set(found["top_items"]) == set(before["top_items"])
        assert client.get("/recommend?user_id=8&top_k=3").json()["source"] == "reranked"
        like(client, 7, 1020, 1021)
        again = client.get("/recommend?user_id=7&top_k=30").json()
        assert again["top_items"] == known["top_items"]
    with closing(sqlite3.connect(file)) as connection:
        query = "SELECT count(*) FROM recsys_events"
        assert connection.execute(query).fetchone() == (3,)


def test_another_data_set_is_not_served_with_the_store_of_the_first(
    untrained_bundle: Path, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/e.db"
    models = ModelStore(untrained_bundle, "cpu")
    with TestClient(create_app(models, ServingOptions(store_url=url))):
        models.prepared(untrained_bundle)
        frame = models.current.item_frame
        other = copy(models.current)
        other.artifact = replace(other.artifact, item_frame=frame.assign(title="Bolt"))
        assert models.fits_store is not None
        with pytest.raises(InputError, match="of the bundle's data set"):
            models.fits_store(other)
