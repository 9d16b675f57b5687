"""What rows count, alone and as pairs, from files to histories."""

from pathlib import Path

import numpy as np
import pytest

from recsys.data import files
from recsys.data.prepare import TrainingData, prepare
from recsys.data.splits import make_split
from recsys.data.strengths import checked_event_weights, strongest_type
from recsys.errors import InputError
from recsys.schema import Dataset

ITEMS = "item_id,title\n1,One\n2,Two\n3,Three\n"
EVENTS = """user_id,item_id,timestamp,type,weight
7,1,1577880000,purchase,
7,1,1577880100,view,
7,2,1577880200,view,2.5
8,1,1577880300,,
8,3,1577880400,cart,2
8,3,1577880400,cart,
"""
WEIGHTS = {"view": 1, "cart": 3, "purchase": 10}


def load(folder: Path, events: str = EVENTS, **options: object) -> Dataset:
    (folder / "events.csv").write_text(events)
    (folder / "items.csv").write_text(ITEMS)
    return files.load(folder / "events.csv", folder / "items.csv", **options)  # type: ignore[arg-type]


def test_a_pair_counts_as_its_rows_do_and_has_the_strongest_ones_type(tmp_path: Path) -> None:
    found = load(tmp_path, event_weights=WEIGHTS).interactions
    assert found["weight"].tolist() == [11.0, 2.5, 1.0, 9.0]
    assert found["type"].tolist() == ["purchase", "view", "", "cart"]
    assert found["timestamp"].tolist()[0] == 1577880100  # the latest row's


def test_a_pair_counts_at_most_ten_of_its_strongest_row(tmp_path: Path) -> None:
    views = "".join(f"7,1,{1577880000 + n},view\n" for n in range(40))
    text = f"user_id,item_id,timestamp,type\n{views}7,2,1577880000,cart\n"
    found = load(tmp_path, text, event_weights={"view": 2, "cart": 3}).interactions
    assert found["weight"].tolist() == [20.0, 3.0]


def test_weights_alone_add_up_and_types_alone_change_nothing(tmp_path: Path) -> None:
    assert load(tmp_path).interactions["weight"].tolist() == [2.0, 2.5, 1.0, 3.0]
    untold = {"interactions": {"weight": None}}
    found = load(tmp_path, columns=untold).interactions
    assert "weight" not in found
    assert found["type"].tolist() == ["view", "view", "", "cart"]  # the latest row's


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event_weights": {"view": 1, "purchase": 3}}, r"none for 'cart' \(2 rows\)"),
        ({"event_weights": {"view": 0}}, r"found view: 0"),
        ({"event_weights": {"view": True}}, r"found view: True"),
        ({"event_weights": {"view": float("nan")}}, r"found view: nan"),
        ({"event_weights": "view"}, r"found 'view'"),
        ({"positive": "rating >= 4"}, r"a column 'rating' in"),
        ({"positive": "type == lease"}, r"none among 6"),
    ],
)
def test_mistakes_in_settings_are_told(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, **options)


@pytest.mark.parametrize("weight", ["0", "-1", "many", "inf", "1e300"])
def test_broken_weights_are_told_with_their_line(tmp_path: Path, weight: str) -> None:
    with pytest.raises(InputError, match=r"column 'weight'.*above 0.*line 4"):
        load(tmp_path, EVENTS.replace("2.5", weight))


def test_event_weights_without_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a column 'type'"):
        load(tmp_path, "user_id,item_id,timestamp\n7,1,1577880000\n", event_weights=WEIGHTS)


def test_rows_that_are_no_positives_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        found = load(tmp_path, event_weights=WEIGHTS, positive="type != view").interactions
    assert "3 of 6 interactions (50.0%) are positive (type != view)" in caplog.text
    assert found[["user_id", "item_id"]].to_numpy().tolist() == [[7, 1], [8, 3]]
    assert found["weight"].tolist() == [10.0, 9.0]


def test_the_strongest_type_is_one_that_counts_more() -> None:
    assert strongest_type(WEIGHTS) == "purchase"
    assert strongest_type({"view": 2, "like": 2}) is None
    assert strongest_type(None) is None
    assert checked_event_weights(None) is None


def prepared(folder: Path, **options: object) -> TrainingData:
    rows = [f"{user},{item},{1577880000 + item},view\n" for user in (7, 8) for item in (1, 2, 3)]
    text = "user_id,item_id,timestamp,type\n" + "".join(rows) + "7,2,1577890000,purchase\n"
    dataset = load(folder, text, **options)
    return prepare(dataset, make_split(dataset.interactions, "leave_last", num_test=1))


def test_strengths_and_types_reach_the_histories_and_the_hashes(tmp_path: Path) -> None:
    weighted = prepared(tmp_path, event_weights={"view": 2, "purchase": 5})
    # The purchase is user 7's latest row, and held out.
    held_out = weighted.split.test.set_index("user_id")["type"]
    assert held_out.to_dict() == {7: "purchase", 8: "view"}
    assert weighted.train.weights.tolist() == [2.0] * 4
    assert weighted.train.types.tolist() == [1] * 4
    assert list(weighted.event_types) == ["view", "purchase"]
    alike = prepared(tmp_path)
    assert alike.train.weights.dtype == np.float32
    assert alike.train.weights.tolist() == [1.0] * 4
    assert alike.fingerprint != weighted.fingerprint
    untyped = prepared(tmp_path, columns={"interactions": {"type": None}})
    assert untyped.fingerprint == alike.fingerprint  # a stage 1 of before is still found
    assert untyped.content_hash() != alike.content_hash()
