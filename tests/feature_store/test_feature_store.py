"""What is known of users and items right before a moment: offline, online, and said plainly."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data import generator
from recsys.data.histories import Histories
from recsys.feature_store.__main__ import listed
from recsys.feature_store.definitions import HALF_LIFE_DAYS, ITEM_FEATURES, USER_FEATURES
from recsys.feature_store.offline import offline_features
from recsys.feature_store.online import OnlineFeatures

ROOT = Path(__file__).parents[2]
DAY = 86_400
EVENTS = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.integers(1, 5),
        st.integers(0, 60 * DAY),
        st.none() | st.integers(1, 5),
    ),
    min_size=1,
    max_size=40,
)


def frame_of(events: list[tuple[int, int, int, int | None]]) -> pd.DataFrame:
    frame = pd.DataFrame(events, columns=["user_id", "item_id", "timestamp", "rating"])
    return frame.astype({"rating": "float64"})


def plainly(events: pd.DataFrame, column: str, entity: int, as_of: int) -> dict[str, float]:
    """The features as one would say them, for one entity at one time."""
    own = events[(events[column] == entity) & (events["timestamp"] < as_of)]
    age = (as_of - own["timestamp"]) / DAY
    found = {
        "num_events": len(own),
        **{f"num_events_{days}d": int((age <= days).sum()) for days in (1, 7, 30)},
        "days_since_last": age.min() if len(own) else np.nan,
        "days_since_first": age.max() if len(own) else np.nan,
        "mean_value": own["rating"].mean(),
    }
    if column == "item_id":
        found["decayed_events"] = float((0.5 ** (age / HALF_LIFE_DAYS)).sum())
    return found


@settings(max_examples=100, deadline=None)
@given(events=EVENTS, rows=EVENTS)
def test_offline_features_are_what_was_known_right_before(events: list, rows: list) -> None:
    log, asked = frame_of(events), frame_of(rows)
    found = offline_features(log, asked.drop(columns="rating"))
    for position, row in asked.iterrows():
        for kind in ("user", "item"):
            expected = plainly(log, f"{kind}_id", row[f"{kind}_id"], row["timestamp"])
            own = {name: found.loc[position, f"{kind}_{name}"] for name in expected}
            assert own == pytest.approx(expected, rel=1e-12, nan_ok=True)


@settings(max_examples=100, deadline=None)
@given(events=EVENTS, changed=EVENTS)
def test_what_comes_later_changes_nothing(events: list, changed: list) -> None:
    log = frame_of(events)
    middle = int(log["timestamp"].median())
    rows = log[log["timestamp"] <= middle]
    later = frame_of(changed)
    later["timestamp"] += middle
    before = log[log["timestamp"] < middle]
    pd.testing.assert_frame_equal(
        offline_features(log, rows),
        offline_features(pd.concat([before, later], ignore_index=True), rows),
    )


def replayed(log: pd.DataFrame, num_logged: int) -> None:
    """Ask right before each event, online, and compare with offline, which has all of them."""
    log = log.sort_values("timestamp", kind="stable").reset_index(drop=True)
    num_users, num_items = int(log["user_id"].max()), int(log["item_id"].max())
    first = log[:num_logged].reset_index(drop=True)
    histories = Histories.from_indices(
        first["user_id"].to_numpy(np.int64),
        first["item_id"].to_numpy(np.int64),
        first["timestamp"].to_numpy(np.int64),
        num_users,
        ratings=first["rating"].to_numpy(np.float64),
    )
    online = OnlineFeatures(histories, num_items)
    offline = offline_features(log, log)
    for position in range(num_logged, len(log)):
        row = log.loc[position]
        as_of = int(row["timestamp"])
        own = log[num_logged:position]
        own = own[own["user_id"] == row["user_id"]]
        user = online.user(
            int(row["user_id"]),
            own["timestamp"].to_numpy(np.int64),
            own["rating"].to_numpy(np.float64),
            as_of,
        )
        item = online.items([int(row["item_id"])], as_of)
        for name in (one.name for one in USER_FEATURES):
            expected = offline.loc[position, f"user_{name}"]
            assert user[name] == pytest.approx(expected, rel=1e-12, nan_ok=True), name
        for name in (one.name for one in ITEM_FEATURES):
            expected = offline.loc[position, f"item_{name}"]
            assert item[name][0] == pytest.approx(expected, rel=1e-12, nan_ok=True), name
        online.add(
            np.array([row["item_id"]], np.int64),
            np.array([as_of], np.int64),
            np.array([row["rating"]], np.float64),
        )


@settings(max_examples=40, deadline=None)
@given(events=EVENTS, share=st.floats(0, 1))
def test_online_features_equal_offline_ones(events: list, share: float) -> None:
    replayed(frame_of(events), int(share * len(events)))


def test_online_features_equal_offline_ones_on_a_data_set() -> None:
    dataset = generator.load(num_users=40, num_items=60, num_interactions=1200)
    log = dataset.interactions.copy()
    for column in ("user_id", "item_id"):
        log[column] = pd.factorize(log[column], sort=True)[0] + 1
    replayed(log[["user_id", "item_id", "timestamp", "rating"]], 900)


@settings(max_examples=50, deadline=None)
@given(events=EVENTS, later=EVENTS)
def test_decayed_popularity_is_the_feature_of_all_items(events: list, later: list) -> None:
    log, more = frame_of(events), frame_of(later)
    more["timestamp"] += int(log["timestamp"].max())
    arrays = [log[name].to_numpy(np.int64) for name in ("user_id", "item_id", "timestamp")]
    online = OnlineFeatures(Histories.from_indices(*arrays, 4), 5)
    online.add(
        more["item_id"].to_numpy(np.int64), more["timestamp"].to_numpy(np.int64), more["rating"]
    )
    online.grow(7)
    latest = int(more["timestamp"].max())
    expected = online.items(list(range(8)), latest + 1)["decayed_events"]
    np.testing.assert_allclose(online.decayed_popularity(), expected, rtol=1e-4)
    assert len(online.decayed_popularity()) == 8


def test_attributes_are_joined() -> None:
    rows = frame_of([(1, 2, 10, None)])
    users = pd.DataFrame({"user_id": [1], "age": [30]})
    items = pd.DataFrame({"item_id": [2], "genres": ["War"]})
    found = offline_features(rows, rows, users, items)
    assert found.loc[0, "user_age"] == 30
    assert found.loc[0, "item_genres"] == "War"
    assert found.loc[0, "item_num_events"] == 0


def test_the_docs_have_the_definitions() -> None:
    assert listed() in (ROOT / "docs" / "features.md").read_text()


def test_the_command_writes_features_and_refuses_bad_files(tmp_path: Path) -> None:
    frame_of([(1, 2, 10**9, 4), (1, 3, 10**9 + DAY, None)]).to_csv(tmp_path / "e.csv", index=False)
    pd.DataFrame({"item_id": [2, 3], "title": ["A", "B"]}).to_csv(tmp_path / "i.csv", index=False)
    command = [sys.executable, "-m", "recsys.feature_store", "offline"]
    output = tmp_path / "x" / "f.parquet"
    files = ["--interactions", str(tmp_path / "e.csv"), "--items", str(tmp_path / "i.csv")]
    done = subprocess.run(
        [*command, *files, "--output", str(output)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "2 rows" in done.stdout
    found = pd.read_parquet(output)
    assert found["user_num_events"].tolist() == [0, 1]
    assert found["user_days_since_last"].tolist()[1] == 1
    done = subprocess.run(
        [*command, *files[:2], "--items", "none.csv", "--output", str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected")
    assert len(done.stderr.splitlines()) == 1


def test_the_log_says_which_items_it_has_older_events_of() -> None:
    """Items 1, 2 and 3 have events from 10, 20 and none; later events are not of the log."""
    items, times = np.array([1, 1, 2]), np.array([10, 30, 20])
    online = OnlineFeatures(Histories.from_indices(np.array([1, 2, 1]), items, times, 2), 3)
    online.add(np.array([3, 5]), np.array([5, 5]), np.full(2, np.nan))
    asked = np.array([0, 1, 2, 3, 5])
    for time, expected in ((10, []), (11, [1]), (20, [1]), (20.5, [1, 2]), (21, [1, 2])):
        assert asked[online.in_log_before(asked, time)].tolist() == expected
    assert online.in_log_before(asked[:0], 9).tolist() == []
