import logging
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.splits import check_no_leakage, make_split
from recsys.errors import InputError

NAMES = ("ua", "random", "leave_last", "global_time")
PER_USER = ("ua", "random", "leave_last")


def frame(rows: list[tuple[int, int, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).astype("int64")


@st.composite
def interactions(draw: st.DrawFn) -> pd.DataFrame:
    """Up to 40 distinct pairs of 5 users and 12 items, times with many ties, users with 2 rows."""
    pairs = draw(
        st.lists(
            st.tuples(st.integers(1, 5), st.integers(1, 12)), min_size=4, max_size=40, unique=True
        )
    )
    times = draw(st.lists(st.integers(0, 6), min_size=len(pairs), max_size=len(pairs)))
    return frame([(user, item, time) for (user, item), time in zip(pairs, times, strict=True)])


def split_or_none(rows: pd.DataFrame, name: str, **options: float) -> pd.DataFrame | None:
    """The test side as a sorted frame of rows; None where the split would have an empty side."""
    try:
        split = make_split(rows, name, **options)  # type: ignore[arg-type]
    except InputError as error:
        if "to leave" not in str(error):
            raise
        return None
    return split.test.sort_values(["user_id", "item_id"], ignore_index=True)


@pytest.mark.parametrize("name", NAMES)
@given(rows=interactions(), num_test=st.integers(1, 4))
def test_the_sides_are_a_partition_in_file_order(
    name: str, rows: pd.DataFrame, num_test: int
) -> None:
    if split_or_none(rows, name, num_test=num_test) is None:
        return
    split = make_split(rows, name, num_test=num_test)
    keys = pd.MultiIndex.from_frame(rows)
    train, test = (pd.MultiIndex.from_frame(side) for side in (split.train, split.test))
    assert not train.isin(test).any()
    if name != "global_time":
        assert len(train) + len(test) == len(keys)
    for side in (train, test):
        positions = keys.get_indexer(side)
        assert (np.diff(positions) > 0).all()
        assert (positions >= 0).all()


@pytest.mark.parametrize("name", PER_USER)
@given(rows=interactions(), num_test=st.integers(1, 4))
def test_each_user_gives_up_to_half_of_the_rows(
    name: str, rows: pd.DataFrame, num_test: int
) -> None:
    test = split_or_none(rows, name, num_test=num_test)
    total = rows["user_id"].value_counts()
    expected = np.minimum(num_test, total // 2)
    held_out = test["user_id"].value_counts() if test is not None else pd.Series(dtype="int64")
    assert held_out.reindex(total.index, fill_value=0).to_dict() == expected.to_dict()


@given(rows=interactions(), seed=st.integers(0, 5))
def test_row_order_has_no_effect_on_random_and_global_time(rows: pd.DataFrame, seed: int) -> None:
    shuffled = rows.sample(frac=1, random_state=seed).reset_index(drop=True)
    for name in ("random", "global_time"):
        first = split_or_none(rows, name, num_test=2, seed=seed)
        second = split_or_none(shuffled, name, num_test=2, seed=seed)
        assert (first is None) == (second is None)
        if first is not None:
            pd.testing.assert_frame_equal(first, second)


@given(rows=interactions())
def test_leave_last_holds_out_nothing_older_than_what_it_leaves(rows: pd.DataFrame) -> None:
    if split_or_none(rows, "leave_last", num_test=3) is None:
        return
    split = make_split(rows, "leave_last", num_test=3)
    newest_left = split.train.groupby("user_id")["timestamp"].max()
    oldest_out = split.test.groupby("user_id")["timestamp"].min()
    assert (oldest_out >= newest_left.loc[oldest_out.index]).all()


@given(rows=interactions(), fraction=st.floats(0.05, 0.95))
def test_global_time_cuts_at_one_moment(rows: pd.DataFrame, fraction: float) -> None:
    if split_or_none(rows, "global_time", test_fraction=fraction) is None:
        return
    split = make_split(rows, "global_time", test_fraction=fraction)
    assert split.train["timestamp"].max() < split.test["timestamp"].min()
    assert set(split.test["user_id"]) <= set(split.train["user_id"])
    assert len(rows) - len(split.train) >= max(1, round(fraction * len(rows)))


def test_ua_takes_the_first_rows_in_file_order() -> None:
    rows = frame([(2, 1, 9), (1, 1, 5), (2, 2, 1), (1, 2, 4), (2, 3, 2), (2, 4, 3)])
    split = make_split(rows, "ua", num_test=2)
    assert split.test[["user_id", "item_id"]].to_numpy().tolist() == [[2, 1], [1, 1], [2, 2]]


def test_leave_last_breaks_equal_times_by_file_order() -> None:
    rows = frame([(1, item, 7) for item in (3, 1, 4, 2)])
    assert make_split(rows, "leave_last", num_test=2).test["item_id"].tolist() == [4, 2]


def test_random_depends_on_the_seed_alone() -> None:
    rows = frame([(user, item, 0) for user, item in product(range(20), range(20))])
    first, again, other = (
        make_split(rows, "random", num_test=5, seed=seed).test for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_random_favours_no_item() -> None:
    rows = frame([(user, item, 0) for user, item in product(range(2_000), range(10))])
    counts = make_split(rows, "random", num_test=3).test["item_id"].value_counts()
    # 2,000 users x 3 of 10 items: 600 per item, standard deviation 20.
    assert counts.between(500, 700).all()


def test_global_time_drops_and_counts_rows_of_new_users(caplog: pytest.LogCaptureFixture) -> None:
    rows = frame([(1, 1, 0), (1, 2, 1), (1, 3, 2), (2, 1, 3), (2, 2, 3), (1, 4, 3)])
    with caplog.at_level(logging.INFO):
        split = make_split(rows, "global_time", test_fraction=0.5)
    assert split.test[["user_id", "item_id"]].to_numpy().tolist() == [[1, 4]]
    assert "2 test rows of 1 users" in caplog.text
    assert "2 test rows of 1 users" in split.protocol


def test_global_time_keeps_rows_of_one_moment_together() -> None:
    rows = frame([(1, item, time) for item, time in enumerate((0, 0, 1, 1, 1, 1))])
    assert len(make_split(rows, "global_time", test_fraction=0.1).test) == 4


@pytest.mark.parametrize("name", NAMES)
def test_the_protocol_names_the_split(name: str) -> None:
    rows = frame([(user, item, item) for user, item in product(range(3), range(10))])
    assert make_split(rows, name, num_test=3).protocol.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "ub"}, "ua, random, leave_last, global_time"),
        ({"name": "ua", "num_test": 0}, "num_test of at least 1"),
        ({"name": "global_time", "test_fraction": 1.0}, "test_fraction between 0 and 1"),
        ({"name": "global_time", "test_fraction": 0.0}, "test_fraction between 0 and 1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make_split(frame([(1, 1, 1), (1, 2, 2)]), **options)  # type: ignore[arg-type]


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(InputError, match="test rows; found none"):
        make_split(frame([(1, 1, 1), (2, 1, 1)]), "random")
    with pytest.raises(InputError, match="training rows; found none"):
        make_split(frame([(1, 1, 5), (2, 1, 5)]), "global_time")
    with pytest.raises(InputError, match="to leave"):
        make_split(frame([]), "ua")


def test_leakage_is_counted_and_shown() -> None:
    train = frame([(1, 1, 0), (1, 2, 0), (2, 1, 0)])
    check_no_leakage(train, frame([(1, 3, 0), (2, 2, 0)]))
    with pytest.raises(InputError, match=r"found 2 test rows .*\[\[1, 2\], \[2, 1\]\]"):
        check_no_leakage(train, frame([(1, 2, 9), (1, 3, 0), (2, 1, 0)]))


def test_a_repeated_pair_is_leakage() -> None:
    with pytest.raises(InputError, match="no \\(user, item\\) in both"):
        make_split(frame([(1, 1, 0), (1, 1, 1)]), "ua", num_test=1)


def test_string_ids_split_like_integers() -> None:
    rows = frame([(user, item, item) for user, item in product(range(5), range(8))])
    text = rows.astype({"user_id": "str", "item_id": "str"})
    for name in NAMES:
        expected = make_split(rows, name, num_test=2).test
        found = make_split(text, name, num_test=2).test
        assert found.astype("int64").to_numpy().tolist() == expected.to_numpy().tolist()


@pytest.mark.parametrize("name", ["random", "ua", "leave_last", "global_time"])
def test_without_times_only_splits_that_need_none_can_be_made(name: str) -> None:
    untimed = pd.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [1, 2, 1, 2]})
    if name in ("random", "ua"):
        split = make_split(untimed, name, num_test=1)
        assert (len(split.train), len(split.test)) == (2, 2)
    else:
        with pytest.raises(
            InputError, match=r"times .*interactions\.timestamp.*data\.split=random"
        ):
            make_split(untimed, name)
