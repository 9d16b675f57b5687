"""What rows count, alone and as pairs, from files to histories."""

from pathlib import Path

import numpy as np
import pytest

from recsys.data import files
from recsys.data.prepare import TrainingData, prepare, prepare_all
from recsys.data.splits import make_split
from recsys.data.strengths import checked_event_weights, strongest_type
from recsys.errors import InputError
from recsys.schema import Dataset, Split

ITEMS = "item_id,title\n1,One\n2,Two\n3,Three\n4,Four\n"
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


DAY = 86_400
START = 1577880000
ORDERS = "user_id,item_id,timestamp\n" + "".join(
    f"{user},{item},{START + day * DAY}\n"
    for user, item, day in [
        *((7, 1, 0), (7, 1, 30), (7, 1, 60), (7, 2, 60), (7, 3, 30)),
        *((8, 1, 0), (8, 2, 30), (8, 3, 90)),
    ]
)


def test_repeats_count_where_that_is_wanted(tmp_path: Path) -> None:
    assert "weight" not in load(tmp_path, ORDERS).interactions
    found = load(tmp_path, ORDERS, count_repeats=True).interactions
    assert found["weight"].tolist() == [3.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    # What counts by weights or types counts as before.
    alike = load(tmp_path, event_weights=WEIGHTS).interactions
    again = load(tmp_path, event_weights=WEIGHTS, count_repeats=True).interactions
    assert again.equals(alike)


def test_rows_fade_to_the_latest_of_their_pair_and_then_to_the_end_of_training(
    tmp_path: Path,
) -> None:
    dataset = load(tmp_path, ORDERS, half_life_days=30)
    assert dataset.interactions["weight"].tolist() == [1.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    rows = dataset.interactions
    everything = prepare_all(dataset).train
    pairs = zip(everything.user_idx.tolist(), everything.item_idx.tolist(), strict=True)
    # Day 90 is the end: 1 + 0.5 + 0.25 orders, a half-life ago, of user 7 and item 1.
    assert dict(zip(pairs, everything.weights.tolist(), strict=True)) == pytest.approx(
        {(1, 1): 0.875, (1, 2): 0.5, (1, 3): 0.25, (2, 1): 0.125, (2, 2): 0.25, (2, 3): 1.0}
    )
    # Where that row is held out, nothing reads how late it is.
    is_test = (rows["user_id"] == 8) & (rows["item_id"] == 3)
    kept = Split("by hand", "", rows[~is_test], rows[is_test])
    before = prepare(dataset, kept).train
    assert before.weights.tolist() == pytest.approx([0.5, 1.75, 1.0, 0.25, 0.5])
    later = rows.assign(timestamp=rows["timestamp"] + 1000 * DAY * is_test)
    kept = Split("by hand", "", later[~is_test], later[is_test])
    assert prepare(dataset, kept).train.weights.tolist() == before.weights.tolist()


def test_a_pair_has_its_strongest_type_however_long_ago(tmp_path: Path) -> None:
    found = load(tmp_path, event_weights=WEIGHTS, half_life_days=1e-4).interactions
    assert found["type"].tolist() == ["purchase", "view", "", "cart"]
    # 100 s are 11.6 half-lives, and 9 = 2 * 3 + 3 are of one moment.
    assert found["weight"].tolist() == pytest.approx([1.0033, 2.5, 1.0, 9.0], abs=1e-3)


def test_no_row_fades_to_nothing(tmp_path: Path) -> None:
    weights = prepare_all(load(tmp_path, ORDERS, half_life_days=0.01)).train.weights
    assert weights.min() == pytest.approx(1e-6)
    assert weights.max() == 1.0


def test_times_in_the_future_are_not_what_others_fade_to(tmp_path: Path) -> None:
    future = f"7,4,{START + 20_000 * DAY}\n"
    train = prepare_all(load(tmp_path, ORDERS + future, half_life_days=30)).train
    assert sorted(train.weights.tolist()) == pytest.approx(
        [0.125, 0.25, 0.25, 0.5, 0.875, 1.0, 1.0]
    )


@pytest.mark.parametrize("days", [0, -1, True, float("nan"), float("inf"), "90"])
def test_a_half_life_that_is_none_is_refused(tmp_path: Path, days: object) -> None:
    with pytest.raises(InputError, match=r"data\.half_life_days to be a number above 0"):
        load(tmp_path, ORDERS, half_life_days=days)


def test_without_times_nothing_fades(tmp_path: Path) -> None:
    text = "user_id,item_id\n7,1\n7,1\n8,2\n"
    with pytest.raises(InputError, match="times of interactions in"):
        load(tmp_path, text, half_life_days=30)
    assert load(tmp_path, text, count_repeats=True).interactions["weight"].tolist() == [2.0, 1.0]


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
