"""What a user has dismissed is no taste; it comes from files as it does from live events."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.data import files
from recsys.data.prepare import TrainingData, prepare, prepare_all
from recsys.data.splits import make_split
from recsys.errors import InputError
from recsys.schema import Dataset

START = 10**9
ITEMS = pd.DataFrame({"item_id": [1, 2, 3, 4, 5], "title": list("abcde")})


def log(*rows: tuple[int, int, int, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "type"])
    return frame.assign(timestamp=frame["timestamp"] + START)


ROWS = (
    *((1, 1, 0, "view"), (1, 1, 50, "dismiss")),  # dismissed, whatever was said before
    *((1, 2, 60, "view"), (1, 2, 10, "dismiss")),  # taken back by what came later
    *((1, 3, 20, "view"), (1, 4, 30, ""), (1, 5, 40, "dismiss")),
    *((2, 1, 0, "view"), (2, 2, 10, "purchase"), (2, 3, 20, "view")),
    *((3, 1, 5, "dismiss"),),  # of a user who tells no taste at all
)


def loaded(*rows: tuple[int, int, int, str], **options: object) -> Dataset:
    return files.load(log(*(rows or ROWS)), ITEMS, **options)  # type: ignore[arg-type]


def pairs(frame: pd.DataFrame) -> list[tuple[int, int]]:
    return list(zip(frame["user_id"], frame["item_id"], strict=True))


def dismissed(data: TrainingData) -> list[tuple[int, int]]:
    events = data.dismissed
    if events is None:
        return []
    users, items = data.users.decode(events.user_idx), data.items.decode(events.item_idx)
    return list(zip(users, items, strict=True))


def test_dismissed_pairs_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        dataset = loaded()
    assert "3 pairs of user and item were dismissed last" in caplog.text
    assert pairs(dataset.interactions) == [(1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (2, 3)]
    assert set(dataset.interactions["type"]) == {"view", "purchase", ""}
    assert dataset.dismissed is not None
    assert pairs(dataset.dismissed) == [(1, 1), (1, 5), (3, 1)]
    assert (dataset.dismissed["timestamp"] - START).tolist() == [50, 40, 5]
    data = prepare_all(dataset)
    assert dismissed(data) == [(1, 5), (1, 1)]  # in time; nothing is known of user 3
    assert "dismiss" not in data.event_types


def test_types_need_no_weight_for_a_dismissal() -> None:
    weights = {"view": 1, "purchase": 10}
    assert loaded(event_weights=weights).interactions["weight"].tolist() == [1, 1, 1, 1, 10, 1]


def test_without_times_the_order_of_rows_tells_which_was_last() -> None:
    frame = log(*ROWS).drop(columns="timestamp")
    dataset = files.load(frame, ITEMS)
    assert dataset.dismissed is not None
    assert pairs(dataset.dismissed) == [(1, 1), (1, 2), (1, 5), (3, 1)]
    assert dismissed(prepare_all(dataset)) == [(1, 1), (1, 2), (1, 5)]


def test_without_any_dismissal_there_is_nothing() -> None:
    dataset = loaded(*(row for row in ROWS if row[3] != "dismiss"))
    assert dataset.dismissed is None
    assert prepare_all(dataset).dismissed is None
    assert prepare_all(dataset).content_hash() != prepare_all(loaded()).content_hash()


@pytest.mark.parametrize("split", ["leave_last", "global_time"])
def test_an_evaluation_knows_of_no_later_dismissals(split: str) -> None:
    early = (*ROWS, (2, 5, 5, "dismiss"), (2, 4, 95, "dismiss"), (2, 3, 90, "view"))
    dataset = loaded(*early)
    data = prepare(dataset, make_split(dataset.interactions, split, num_test=1, test_fraction=0.1))
    held_out = {2: 90, 1: 60} if split == "leave_last" else {2: 90}
    times = dict(zip(data.split.test["user_id"], data.split.test["timestamp"] - START, strict=True))
    assert times == held_out
    assert sorted(dismissed(data)) == [(1, 1), (1, 5), (2, 5)]


def test_where_all_is_dismissed_there_is_nothing_to_learn_from() -> None:
    dataset = loaded((1, 1, 0, "dismiss"), (2, 1, 0, "dismiss"))
    with pytest.raises(InputError):
        prepare_all(dataset)


def test_files_say_the_same(tmp_path: Path) -> None:
    log(*ROWS).to_parquet(tmp_path / "events.parquet")
    ITEMS.to_csv(tmp_path / "items.csv", index=False)
    found = files.load(tmp_path / "events.parquet", tmp_path / "items.csv")
    assert found.dismissed is not None
    assert found.dismissed.equals(loaded().dismissed)
    assert np.array_equal(found.interactions["item_id"], loaded().interactions["item_id"])
