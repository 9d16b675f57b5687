"""From frames to training data: nothing of the test rows gets in."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.histories import Histories
from recsys.data.prepare import hold_out_random, prepare
from recsys.errors import InputError
from recsys.schema import Dataset, Split


def frame(*rows: tuple[int, int, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


TRAIN = frame((7, 10, 1), (7, 20, 2), (9, 20, 3), (9, 30, 4))
TEST = frame((7, 30, 5), (8, 10, 6))
ITEMS = pd.DataFrame({"item_id": [40, 30, 20, 10], "title": ["d", "c", "b", "a"]})


def prepared(train: pd.DataFrame = TRAIN, test: pd.DataFrame = TEST):
    dataset = Dataset("tiny", pd.concat([train, test]), ITEMS)
    return prepare(dataset, Split("random", "a test", train, test))


def test_vocabularies_hold_the_catalogue_and_the_training_users() -> None:
    data = prepared()
    assert data.items.ids.tolist() == [10, 20, 30, 40]
    assert data.users.ids.tolist() == [7, 9]
    assert data.catalog.items["title"].tolist() == ["a", "b", "c", "d"]


def test_histories_hold_training_rows_alone() -> None:
    train = prepared().train
    decoded = zip(train.user_idx.tolist(), train.item_idx.tolist(), strict=True)
    assert set(decoded) == {(1, 1), (1, 2), (2, 2), (2, 3)}


def test_a_test_row_in_training_is_refused() -> None:
    with pytest.raises(InputError):
        prepared(train=pd.concat([TRAIN, TEST.head(1)], ignore_index=True))


def test_too_little_to_train_on_is_refused() -> None:
    with pytest.raises(InputError, match="two users"):
        prepared(train=TRAIN.head(3))


def test_the_fingerprint_follows_training_rows_and_not_test_rows() -> None:
    original = prepared().fingerprint
    assert prepared(test=TEST.head(1)).fingerprint == original
    changed = TRAIN.assign(timestamp=[1, 2, 3, 5])
    assert prepared(train=changed).fingerprint != original
    assert prepared(train=TRAIN.assign(item_id=[10, 20, 20, 40])).fingerprint != original


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    count=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_holding_out_partitions_and_leaves_half(lengths, count, seed) -> None:
    users = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    events = Histories.from_indices(
        users, np.arange(1, len(users) + 1), np.arange(len(users)), len(lengths)
    )
    kept, held = hold_out_random(events, count, seed)
    assert sorted([*kept.item_idx, *held.item_idx]) == sorted(events.item_idx)
    expected = [min(count, length // 2) for length in lengths]
    assert held.lengths[1:].tolist() == expected
