from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.histories import Histories, latest_events
from recsys.data.times import EARLIEST
from recsys.data.vocabulary import Vocabulary

USERS, ITEMS = Vocabulary(["ann", "bob", "eve"]), Vocabulary([10, 20, 30])


def frame(rows: list[tuple[str, int, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


@pytest.fixture
def histories() -> Histories:
    """ann: 20 then 10; bob: nothing; eve: 30, 10, 20, the last two at one time."""
    rows = [("eve", 10, 5), ("ann", 10, 9), ("eve", 30, 1), ("ann", 20, 3), ("eve", 20, 5)]
    return Histories.from_frame(frame(rows), USERS, ITEMS)


def test_events_are_in_time_order_and_ties_in_file_order(histories: Histories) -> None:
    assert histories.offsets.tolist() == [0, 0, 2, 2, 5]
    assert histories.item_idx.tolist() == [2, 1, 3, 1, 2]
    assert histories.timestamps.tolist() == [3, 9, 1, 5, 5]
    assert histories.user_idx.tolist() == [1, 1, 3, 3, 3]


def test_counts(histories: Histories) -> None:
    assert (len(histories), histories.num_users) == (5, 3)
    assert histories.lengths.tolist() == [0, 2, 0, 3]
    assert histories.item_counts(4).tolist() == [0, 2, 2, 1, 0]


def test_padding_is_left_aligned_oldest_first(histories: Histories) -> None:
    batch = histories.pad(np.array([3, 2, 1]))
    assert batch.item_idx.tolist() == [[3, 1, 2], [0, 0, 0], [2, 1, 0]]
    assert batch.timestamps.tolist() == [[1, 5, 5], [0, 0, 0], [3, 9, 0]]
    assert batch.mask.tolist() == [[True] * 3, [False] * 3, [True, True, False]]


def test_truncation_keeps_the_latest(histories: Histories) -> None:
    assert histories.pad(np.array([3, 1]), max_length=2).item_idx.tolist() == [[1, 2], [2, 1]]


def weighed(histories: Histories) -> Histories:
    """An event of an item weighs as the item's number: 9 / 5 on average."""
    return replace(histories, weights=histories.item_idx.astype(np.float32))


def test_padding_carries_weights_by_their_mean(histories: Histories) -> None:
    batch = weighed(histories).pad(np.array([3, 2, 1]))
    assert batch.weights is not None
    assert batch.weights.dtype == torch.float32
    torch.testing.assert_close(batch.weights, batch.item_idx / torch.tensor(9 / 5))


def test_events_that_are_alike_carry_no_weights(histories: Histories) -> None:
    same = replace(histories, weights=np.full(5, 7.0, np.float32))
    for alike in (histories, same):
        assert alike.pad(np.array([3, 1])).weights is None
        assert latest_events(alike.pad(np.array([3, 1])), 2).weights is None
        assert alike.pad(np.array([3, 1])).rows([1]).weights is None


def test_the_latest_events_and_some_rows_keep_their_weights(histories: Histories) -> None:
    users = np.array([3, 2, 1])
    whole = weighed(histories).pad(users)
    for found, expected in zip(
        latest_events(whole, 2), weighed(histories).pad(users, max_length=2), strict=True
    ):
        assert torch.equal(found, expected)
    for own in ([0, 2], torch.tensor([0, 2]), np.array([0, 2]), torch.tensor([True, False, True])):
        rows = whole.rows(own)
        assert rows.item_idx.tolist() == [[3, 1, 2], [2, 1, 0]]
        assert torch.equal(rows.weights, whole.weights[[0, 2]])
    assert torch.equal(whole.rows(slice(1, 3)).weights, whole.weights[1:])


def test_the_width_is_at_least_one(histories: Histories) -> None:
    batch = histories.pad(np.array([2, 0]))
    assert batch.item_idx.tolist() == [[0], [0]]
    assert not batch.mask.any()
    empty = Histories.from_frame(frame([]).astype({"timestamp": "int64"}), USERS, ITEMS)
    assert empty.pad(np.array([1])).item_idx.tolist() == [[0]]


def test_unknown_ids_are_refused() -> None:
    for row in (("zoe", 10, 0), ("ann", 99, 0)):
        with pytest.raises(ValueError, match="vocabulary lacks"):
            Histories.from_frame(frame([row]), USERS, ITEMS)


@given(
    events=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(0, 5)), max_size=30)
)
def test_each_user_keeps_exactly_their_events(events: list[tuple[int, int, int]]) -> None:
    user, item, time = np.array(events, dtype=np.int64).reshape(-1, 3).T
    ratings = item / 2
    histories = Histories.from_indices(user, item, time, num_users=4, ratings=ratings)
    assert histories.ratings.tolist() == (histories.item_idx / 2).tolist()
    for number in range(1, 5):
        expected = sorted((e for e in events if e[0] == number), key=lambda e: e[2])
        batch = histories.pad(np.array([number]))
        found = batch.item_idx[batch.mask].tolist()
        assert found == [event[1] for event in expected]


@given(
    events=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=30),
    seed=st.integers(0, 9),
)
def test_select_keeps_users_and_order(events: list[tuple[int, int]], seed: int) -> None:
    user, item = np.array(events, dtype=np.int64).T
    histories = Histories.from_indices(
        user, item, np.arange(len(user)), num_users=4, ratings=item / 2
    )
    keep = np.random.default_rng(seed).random(len(histories)) < 0.5
    kept = histories.select(keep)
    assert kept.num_users == 4
    assert kept.item_idx.tolist() == histories.item_idx[keep].tolist()
    assert kept.ratings.tolist() == (kept.item_idx / 2).tolist()
    assert kept.user_idx.tolist() == histories.user_idx[keep].tolist()


def test_events_without_times_keep_their_order_at_one_time() -> None:
    frame = pd.DataFrame({"user_id": [1, 2, 1], "item_id": [3, 1, 2]})
    found = Histories.from_frame(frame, Vocabulary([1, 2]), Vocabulary([1, 2, 3]))
    assert found.item_idx.tolist() == [3, 2, 1]
    assert set(found.timestamps.tolist()) == {EARLIEST}


def test_ranks_from_end_count_each_users_events_from_the_latest() -> None:
    histories = Histories.from_indices(
        np.array([2, 1, 1, 2, 1]), np.arange(1, 6), np.array([5, 1, 3, 4, 2]), 2
    )
    assert histories.ranks_from_end.tolist() == [2, 1, 0, 1, 0]
