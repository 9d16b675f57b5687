"""What live events count: as their strongest type does in training."""

import pytest

from recsys.events.strengths import strengths_of
from recsys.events.types import TOLD_TYPES, type_set

WEIGHTS = {"view": 0.5, "purchase": 10.0, "returned": 7.0}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["view"], 0.5),
        (["purchase"], 10.0),
        (["view", "purchase"], 10.0),
        (["cart"], 1.0),
        (["view", "cart"], 1.0),
        ([], 1.0),
        ([*TOLD_TYPES], 10.0),
    ],
)
def test_an_event_counts_as_its_strongest_type(names: list[str], expected: float) -> None:
    assert strengths_of([type_set(names)], WEIGHTS).tolist() == [expected]


def test_where_training_weighed_no_types_each_event_counts_1() -> None:
    for weights in (None, {}):
        assert strengths_of([type_set(["purchase"]), 0], weights).tolist() == [1.0, 1.0]


def test_of_no_events_there_are_no_strengths() -> None:
    assert strengths_of([], WEIGHTS).shape == (0,)
