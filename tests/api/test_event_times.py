"""Times of events as in files, and items that nobody knows, told."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.api.times import with_seconds
from recsys.data.files import parse_timestamps

NOON = 1_700_049_600  # 2023-11-15T12:00:00Z


@pytest.fixture
def client(untrained_bundle: Path, tmp_path: Path) -> Iterator[TestClient]:
    options = ServingOptions(store_url=f"sqlite+aiosqlite:///{tmp_path}/e.db")
    app = create_app(ModelStore(untrained_bundle, "cpu"), options)
    with TestClient(app, client=("127.0.0.1", 1), base_url="http://localhost") as client:
        yield client


def event(number: int, **more: Any) -> dict[str, Any]:
    return {"event_id": f"e{number}", "user_id": 7, "item_id": 1001, "type": "like", **more}


@pytest.mark.parametrize(
    "written",
    [
        NOON,
        NOON + 0.9,
        str(NOON),
        "2023-11-15T12:00:00Z",
        "2023-11-15T12:00:00.999+00:00",
        "2023-11-15T13:00:00+01:00",
        "2023-11-15 12:00:00",
        "2023-11-15T12:00",
        " 2023-11-15T12:00:00 ",
    ],
)
def test_a_time_is_read_as_in_files(written: Any) -> None:
    assert with_seconds([event(1, timestamp=written)])[0]["timestamp"] == NOON
    if isinstance(written, str):
        assert parse_timestamps(pd.Series([written.strip()]))[0] == NOON


def test_times_of_all_kinds_come_in_together(client: TestClient) -> None:
    now = int(time.time())
    written = [now - 60, "2023-11-15T12:00:00Z", str(NOON), NOON + 0.5, None, "2023-11-15"]
    events = [event(n, item_id=1001 + n, timestamp=one) for n, one in enumerate(written)]
    response = client.post("/events", json={"events": [*events, event(9, item_id=1010)]})
    assert response.status_code == 200, response.text
    days = client.get("/features?user_id=7").json()["user"]["days_since_first"]
    assert days == pytest.approx((now - (NOON - 43_200)) / 86_400, abs=0.01)


@pytest.mark.parametrize(
    "written",
    [
        *("yesterday", "now", "2023-13-01", "15.11.2023", "", "NaN", "12:00", "1e400"),
        *(0, -1, "1969-12-31T00:00:00Z", "1970-06-01", "9999-01-01", 1_700_000_000_000, 1e300),
        *(True, [], {}),
    ],
)
def test_what_is_no_time_is_refused(client: TestClient, written: Any) -> None:
    sent = {"events": [event(1), event(2, timestamp=written)]}
    response = client.post("/events", json=sent)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"][:4] == ["body", "events", 1, "timestamp"]


def test_items_that_are_not_in_the_catalogue_are_told(client: TestClient) -> None:
    known, typo, other = event(1), event(2, item_id=10001), event(3, item_id=-5)
    answer = client.post("/events", json={"events": [known]}).json()
    assert answer == {"accepted": 1, "duplicates": 0, "unknown_items": 0}
    answer = client.post("/events", json={"events": [known, typo, other, event(4, item_id=-5)]})
    assert answer.json() == {
        "accepted": 3,
        "duplicates": 1,
        "unknown_items": 3,
        "unknown_item_ids": [10001, -5],
    }
