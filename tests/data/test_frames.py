"""Frames are read as files are: the same values from the same rules, and errors that name them."""

import datetime
import decimal
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recsys.data import files
from recsys.data.frames import read_frame
from recsys.errors import InputError

NOON = 1_577_880_000  # 2020-01-01T12:00:00Z
ITEMS = pd.DataFrame({"item_id": [1, 2, 3], "title": ["One", "Two", "Three"]})


def events(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {"user_id": [7, 8], "item_id": [1, 2], "timestamp": [NOON, NOON + 1]} | columns
    )


class ToPandas:
    """As libraries are that know no Arrow."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def to_pandas(self) -> pd.DataFrame:
        return self.frame


class ArrowStream:
    """As libraries are that know nothing but Arrow's interface."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.table = pa.Table.from_pandas(frame)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def polars(frame: pd.DataFrame) -> object:
    return pytest.importorskip("polars").from_pandas(frame)


@pytest.mark.parametrize(
    "kind", [pd.DataFrame, ToPandas, ArrowStream, pa.Table.from_pandas, polars]
)
def test_each_kind_of_frame_gives_what_the_same_csv_gives(
    kind: Callable[[pd.DataFrame], object], tmp_path
) -> None:
    rows = events(rating=[4.5, None], timestamp=["2020-01-01T12:00:00", "2020-01-02"])
    items = ITEMS.assign(genres=["Drama|War", None, "Comedy"], year=[1999, None, 2001])
    people = pd.DataFrame({"user_id": [7, 8], "age": [24, 61], "city": ["Oslo", None]})
    frames = {"interactions": rows, "items": items, "users": people}
    for name, frame in frames.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    expected = files.load(**{name: tmp_path / f"{name}.csv" for name in frames})
    found = files.load(**{name: kind(frame) for name, frame in frames.items()})
    for name in frames:
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize(
    "times",
    [
        pd.to_datetime([NOON, NOON + 1], unit="s"),
        pd.to_datetime([NOON, NOON + 1], unit="s", utc=True).tz_convert("Asia/Tokyo"),
        [NOON, NOON + 1],
        [NOON + 0.25, NOON + 1.75],
        ["2020-01-01T12:00:00Z", "2020-01-01 12:00:01"],
        [pd.Timestamp(NOON, unit="s"), pd.Timestamp(NOON + 1, unit="s")],
        np.array(["2020-01-01T12:00:00", "2020-01-01T12:00:01"], dtype="datetime64[ms]"),
    ],
)
def test_times_may_be_of_any_type(times: object) -> None:
    assert files.load(events(timestamp=times), ITEMS).interactions["timestamp"].tolist() == [
        NOON,
        NOON + 1,
    ]


def test_dates_are_the_moments_that_they_begin() -> None:
    days = [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)]
    data = files.load(events(timestamp=days), ITEMS.assign(release_date=[*days, None]))
    assert data.interactions["timestamp"].tolist() == [NOON - 43_200, NOON + 43_200]
    assert data.items["release_date"].tolist() == ["2020-01-01", "2020-01-02", ""]


def test_ids_keep_their_type() -> None:
    assert files.load(events(), ITEMS).interactions["user_id"].tolist() == [7, 8]
    assert files.load(events(user_id=["7", "8"]), ITEMS).interactions["user_id"].tolist() == [
        "7",
        "8",
    ]
    # As of integers among which one was missing once.
    assert files.load(events(user_id=[7.0, 8.0]), ITEMS).interactions["user_id"].tolist() == [7, 8]
    assert files.load(events(user_id=[7, "b"]), ITEMS).interactions["user_id"].tolist() == [
        "7",
        "b",
    ]
    category = pd.Categorical(["x", "y"])
    assert files.load(events(user_id=category), ITEMS).interactions["user_id"].tolist() == [
        "x",
        "y",
    ]
    ids = [uuid.UUID(int=1), uuid.UUID(int=2)]
    found = files.load(events(user_id=ids), ITEMS).interactions["user_id"].tolist()
    assert found == list(map(str, ids))


@pytest.mark.parametrize("none", [None, np.nan, pd.NA, "", "NULL"])
def test_a_missing_id_is_refused_with_its_row_and_the_frame(none: object) -> None:
    message = r"column 'item_id' of interactions to hold an id in each row; .* row 1 \(from 0\)"
    with pytest.raises(InputError, match=message) as error:
        files.load(events(item_id=pd.Series([1, none], dtype="object")), ITEMS)
    assert "\n" not in str(error.value)


def test_other_names_of_columns_and_levels_of_an_index() -> None:
    renamed = events().rename(columns={"item_id": "movie"})
    with pytest.raises(
        InputError, match=r"column 'item_id' \(item_id\) in interactions; .*'movie'"
    ):
        files.load(renamed, ITEMS)
    columns = {"interactions": {"item_id": "movie"}}
    indexed = files.load(renamed, ITEMS.set_index("item_id"), columns=columns)
    assert indexed.items["item_id"].tolist() == [1, 2, 3]
    assert indexed.interactions["item_id"].tolist() == [1, 2]


def test_the_frames_stay_as_they_are() -> None:
    rows, items = events(user_id=["a ", "b"]), ITEMS.assign(title=[" One", None, ""])
    before = rows.copy(), items.copy()
    files.load(rows, items)
    pd.testing.assert_frame_equal(rows, before[0])
    pd.testing.assert_frame_equal(items, before[1])


@pytest.mark.parametrize("other", [[1, 2], {"user_id": [1]}, 7, np.zeros((2, 2))])
def test_what_is_no_frame_is_named(other: object) -> None:
    with pytest.raises(InputError, match=r"interactions to be a frame .*; make a frame of it"):
        files.load(other, ITEMS)


def test_a_frame_without_rows_or_with_two_columns_of_a_name_is_refused() -> None:
    with pytest.raises(InputError, match="rows in items; found none"):
        files.load(events(), ITEMS.iloc[:0])
    twice = pd.concat([events(), events()[["user_id"]]], axis=1)
    with pytest.raises(InputError, match=r"each column of interactions .*\['user_id'\]"):
        files.load(twice, ITEMS)


def test_values_are_the_text_that_they_print_as() -> None:
    frame = pd.DataFrame(
        {
            "a": [decimal.Decimal("1.50"), None],
            "b": [True, False],
            "c": [["x", "y"], []],
            "d": pd.array([5, None], dtype="Int64"),
            3: ["é", "ü"],
            "e": [1 + 2j, 3j],
        }
    )
    assert read_frame(frame, "items").frame.to_dict("list") == {
        "a": ["1.50", ""],
        "b": ["True", "False"],
        "c": ["x|y", ""],
        "d": ["5", ""],
        "3": ["é", "ü"],
        "e": ["(1+2j)", "3j"],
    }
    assert list(read_frame(frame, "items", {"3"}).frame) == ["3"]
