"""One comparison, read by a parser of its own."""

import pandas as pd
import pytest

from recsys.data.positives import Condition
from recsys.errors import InputError

FRAME = pd.DataFrame(
    {
        "rating": [1.0, 4.0, 5.0, None],
        "weight": [0.5, 1.0, 2.0, 3.0],
        "type": ["view", "purchase", "", "it's"],
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rating >= 4", [1, 2]),
        ("rating<4.5", [0, 1]),
        ("rating != 4", [0, 2]),  # a missing rating meets nothing
        ("weight > .5", [1, 2, 3]),
        (" weight <= 1e0 ", [0, 1]),
        ("type == purchase", [1]),
        ("type != 'view'", [1, 3]),
        ('type == "it\'s"', [3]),
    ],
)
def test_rows_that_hold(text: str, expected: list[int]) -> None:
    holds = Condition.parse(text).holds(FRAME)
    assert holds.nonzero()[0].tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "rating", "rating >= ", ">= 4", "rating => 4", "rating >= four", "rating >= nan"),
        *("rating >= 1e999", "type > view", "user_id == 3", "rating >= 4 and weight > 1"),
        *("rating >= __import__('os')", "rating.x >= 4"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"rating, weight or type.*write e\.g\."):
        Condition.parse(text)
