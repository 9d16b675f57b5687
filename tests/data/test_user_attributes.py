"""User attributes become categories and ranges that enough users share."""

import numpy as np
import pandas as pd
import pytest

from recsys.data.user_attributes import NUM_RANGES, UserAttributes, encode_attributes
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError

USERS = Vocabulary(list(range(1, 101)))


def encoded(**columns: object) -> UserAttributes:
    return UserAttributes.from_frame(pd.DataFrame({"user_id": USERS.ids} | columns), USERS)


def test_categories_are_one_hot() -> None:
    attributes = encoded(gender=["F"] * 40 + ["M"] * 60)
    assert attributes.names == ["gender: F", "gender: M"]
    assert attributes.matrix[1:].sum(axis=0).tolist() == [40, 60]
    assert attributes.matrix[[1, 100]].tolist() == [[1, 0], [0, 1]]


def test_an_unknown_user_is_an_average_one() -> None:
    attributes = encoded(gender=["F"] * 20 + ["M"] * 60 + [None] * 20)
    assert attributes.matrix[0].tolist() == [0.25, 0.75]
    assert (attributes.matrix[81:] == attributes.matrix[0]).all()


def test_numbers_are_cut_into_equally_full_ranges() -> None:
    attributes = encoded(age=np.arange(100))
    assert len(attributes.names) == NUM_RANGES
    assert attributes.names[0] == "age: 0 to 14"
    assert set(attributes.matrix[1:].sum(axis=1)) == {1.0}
    assert set(attributes.matrix[1:].sum(axis=0)) <= {14.0, 15.0}


def test_few_numbers_are_categories() -> None:
    assert encoded(level=[1, 2] * 50).names == ["level: 1", "level: 2"]


def test_categories_of_few_users_are_left_out() -> None:
    attributes = encoded(zip_code=[f"{i:05}" for i in range(96)] + ["same"] * 4)
    assert attributes.matrix.shape == (101, 0)


def test_a_missing_value_beside_others_is_no_attribute() -> None:
    attributes = encoded(gender=["F"] * 50 + [None] * 50, level=["a"] * 100)
    assert attributes.names == ["gender: F", "level: a"]
    assert attributes.matrix[51:, 0].sum() == 0


def test_users_without_training_rows_have_no_say() -> None:
    frame = pd.DataFrame({"user_id": range(1, 201), "group": ["a"] * 100 + ["b"] * 100})
    assert UserAttributes.from_frame(frame, USERS).names == ["group: a"]


def test_without_a_table_there_are_none() -> None:
    assert UserAttributes.from_frame(None, USERS).matrix.shape == (101, 0)


VALUES: dict[str, list[object]] = {
    "tier": [1, 2] * 50,
    "score": [2.0, 2.5] * 50,
    "paid": [True, False] * 50,
    "flag": ["true", "false"] * 50,
    "plan": ["pro", "free"] * 50,
    "zip": ["01", "1"] * 50,
    "age": list(range(100)),
    "mixed": ["7", "x"] * 50,
}


@pytest.mark.parametrize(
    ("field", "value", "label"),
    [
        ("tier", 1, "1"),
        ("tier", 1.0, "1"),
        ("tier", "1", "1"),
        ("tier", " 1.0 ", "1"),
        ("score", 2, "2.0"),
        ("score", "2", "2.0"),
        ("score", 2.5, "2.5"),
        ("paid", True, "True"),
        ("paid", 1.0, "True"),
        ("paid", "false", "False"),
        ("flag", False, "false"),
        ("plan", " pro ", "pro"),
        ("zip", "01", "01"),
        ("zip", 1.0, "1"),
        ("age", "24", "15 to 28"),
        ("age", 24.0, "15 to 28"),
        ("mixed", 7.0, "7"),
        ("tier", 3, None),
        ("plan", 1.0, None),
        ("plan", "Pro", None),
        ("zip", "001", None),
        ("tier", "1_0", None),
    ],
)
def test_a_value_in_a_request_is_the_one_of_the_table(
    field: str, value: str | float, label: str | None
) -> None:
    names = encoded(**VALUES).names
    found = encode_attributes({field: value}, names, np.full(len(names), 0.5, np.float32))
    of_field = {name: x for name, x in zip(names, found.tolist(), strict=True) if field in name}
    expected = f"{field}: {label}"
    assert {name for name, x in of_field.items() if x == 1.0} == ({expected} if label else set())
    assert set(of_field.values()) <= {0.0, 1.0}


@pytest.mark.parametrize("value", ["old", "nan", "inf", "1e999", "1_0", "024"])
def test_a_range_takes_numbers_alone(value: str) -> None:
    names = encoded(**VALUES).names
    with pytest.raises(InputError, match="a number as 'age'"):
        encode_attributes({"age": value}, names, np.zeros(len(names), np.float32))
