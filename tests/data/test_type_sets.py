"""Which types of events a pair of user and item has had."""

import numpy as np
import pandas as pd
import pytest

from recsys.data import files
from recsys.data.histories import Histories
from recsys.data.prepare import prepare_all
from recsys.data.type_sets import as_text, from_names, have_any, of_single_types, to_names
from recsys.errors import InputError

NAMES = [f"t{number}" for number in range(1, 21)]


def sets_of(*rows: list[str]) -> np.ndarray:
    return from_names(pd.Series([as_text(row) for row in rows], dtype="str"), NAMES)


def test_a_set_has_the_types_that_it_was_given() -> None:
    sets = sets_of(["t1"], ["t20", "t2"], [], ["t8", "t9"])
    assert sets.shape == (4, 3)
    assert have_any(sets, [1]).tolist() == [True, False, True, False]
    assert have_any(sets, [20]).tolist() == [False, True, True, False]
    assert have_any(sets, [9, 2]).tolist() == [False, True, True, True]
    assert have_any(sets, []).tolist() == [False, False, True, False]
    assert to_names(sets, NAMES) == ['["t1"]', '["t2", "t20"]', "", '["t8", "t9"]']


def test_single_types_are_sets_of_one() -> None:
    sets = of_single_types(np.array([3, 0, 17, 8], np.int8))
    assert (sets == sets_of(["t3"], [], ["t17"], ["t8"])).all()
    assert of_single_types(np.zeros(5, np.int8)).shape == (5, 0)


def test_without_any_type_told_all_may_have_had_any() -> None:
    assert have_any(of_single_types(np.zeros(3, np.int8)), [1]).all()


def log(**columns: list) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": [1, 1, 1, 1, 2, 2, 2],
            "item_id": [10, 10, 10, 11, 10, 11, 11],
            "timestamp": [10**9 + n for n in (100, 200, 300, 100, 100, 50, 60)],
            "type": ["view", "purchase", "view", "view", "cart", "", "view"],
            **columns,
        }
    )


ITEMS = pd.DataFrame({"item_id": [10, 11], "title": ["a", "b"]})


def types_of(histories: Histories, names: list[str]) -> list[str]:
    return to_names(histories.type_sets, names)


@pytest.mark.parametrize("weights", [None, {"view": 1, "cart": 3, "purchase": 10}])
def test_a_pair_keeps_all_types_of_its_rows(weights: dict | None) -> None:
    data = prepare_all(files.load(log(), ITEMS, event_weights=weights))
    # By user, then in time: the pair's latest row says when.
    expected = ['["view"]', '["purchase", "view"]', '["view"]', '["cart"]']
    assert types_of(data.train, list(data.event_types)) == expected


def test_an_export_tells_types_that_its_rows_do_not() -> None:
    told = ['["like", "view"]', "", "", "", '["purchase"]', "", ""]
    data = prepare_all(files.load(log(all_types=told), ITEMS))
    expected = ['["view"]', '["like", "purchase", "view"]', '["view"]', '["cart", "purchase"]']
    assert types_of(data.train, list(data.event_types)) == expected
    assert list(data.event_types) == ["cart", "like", "purchase", "view"]


def test_a_type_that_one_row_of_a_pair_lacks_is_that_of_the_others() -> None:
    rows = log(type=["purchase", "", "", "", "", "", ""])
    data = prepare_all(files.load(rows, ITEMS))
    assert types_of(data.train, list(data.event_types)) == ["", '["purchase"]', "", ""]


def test_rows_that_are_no_positives_leave_no_type() -> None:
    data = prepare_all(files.load(log(), ITEMS, positive="type != purchase"))
    assert types_of(data.train, list(data.event_types))[1] == '["view"]'


def test_where_no_pair_has_several_types_nothing_is_added() -> None:
    rows = log().drop_duplicates(["user_id", "item_id"], keep="last")
    assert "all_types" not in files.load(rows, ITEMS).interactions
    assert "all_types" not in files.load(log().drop(columns="type"), ITEMS).interactions


@pytest.mark.parametrize("text", ["view", "{}", "[1]", '"view"'])
def test_what_is_no_list_of_types_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="all_types"):
        files.load(log(all_types=[text, "", "", "", "", "", ""]), ITEMS)


def test_selected_events_keep_their_types() -> None:
    data = prepare_all(files.load(log(), ITEMS))
    later = data.train.select(data.train.timestamps > 10**9 + 100)
    assert types_of(later, list(data.event_types)) == ['["purchase", "view"]']
