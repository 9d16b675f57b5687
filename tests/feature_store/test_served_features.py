"""What ``GET /features`` says is what the offline command would say of the exported log."""

import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.data.files import load
from recsys.export_events import export
from recsys.feature_store.offline import offline_features


def events_of(user_id: int, *told: tuple[int, str, float | None]) -> list[dict[str, Any]]:
    now = int(time.time())
    return [
        {
            "event_id": f"{user_id}-{item_id}",
            "user_id": user_id,
            "item_id": item_id,
            "type": type_,
            "value": value,
            "timestamp": now - 86_400 * number,
        }
        for number, (item_id, type_, value) in enumerate(told, 1)
    ]


def late_events(user_id: int, *item_ids: int) -> list[dict[str, Any]]:
    return [
        {
            "event_id": f"late-{user_id}-{item_id}",
            "user_id": user_id,
            "item_id": item_id,
            "type": "rating",
            "value": 3.0,
            "timestamp": 10**9 - number,
        }
        for number, item_id in enumerate(item_ids, 1)
    ]


def test_served_features_equal_offline_ones(text_bundle: Path, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"
    app = create_app(ModelStore(text_bundle, "cpu"), ServingOptions(store_url=url))
    new = {"title": "New", "description": "Of now.", "genres": ["War", "Drama"], "year": 2020}
    with TestClient(app, client=("127.0.0.1", 1), base_url="http://localhost") as client:
        assert client.put("/items/5001", json=new).status_code == 200
        assert client.put("/items/1002", json={"title": "Renamed"}).status_code == 200
        log = ModelStore(text_bundle, "cpu").current.histories.log
        user = ModelStore(text_bundle, "cpu").current.users.encode([105])[0]
        logged = int(log.item_idx[log.offsets[user]]) + 1000
        events = [
            *events_of(101, (1020, "rating", 2.5), (1021, "view", 33.0), (5001, "rating", 4.0)),
            *events_of(104, (5001, "click", None), (1002, "rating", 1.0)),
            *events_of(777, (1020, "like", None)),  # whom training has not met
            # That came late: from before the end of the training log, which does not have them ...
            *late_events(101, 1025, 1026),
            *late_events(777, 1005),
            # ... but for this one.
            *late_events(105, logged),
        ]
        assert client.post("/events", json={"events": events}).status_code == 200
        export(url, text_bundle, tmp_path / "out")
        names = ("interactions", "items", "users")
        data = load(*(tmp_path / "out" / f"{name}.parquet" for name in names))
        for user_id, item_id in (
            *((101, 5001), (104, 1002), (105, 1020), (777, 1021)),
            *((101, 1025), (777, 1026), (105, 1005), (105, logged)),
        ):
            served = client.get(f"/features?user_id={user_id}&item_id={item_id}").json()
            row = {"user_id": [user_id], "item_id": [item_id], "timestamp": [served["as_of"]]}
            asked = pd.DataFrame(row)
            offline = offline_features(data.interactions, asked, data.users, data.items)
            for kind in ("user", "item"):
                expected = {
                    name: None if pd.isna(value) else value
                    for name, value in offline.iloc[0].filter(like=f"{kind}_").items()
                    if name != f"{kind}_id"
                }
                found = {f"{kind}_{name}": value for name, value in served[kind].items()}
                if user_id == 777 and kind == "user":
                    assert expected.pop("user_age") is None
                assert found == pytest.approx(expected), (user_id, item_id)
