"""What pairs count after an export, read as a file of interactions."""

import pandas as pd
import pytest

from recsys.data.continued_log import continued

END = 1000
WEIGHTS = {"view": 1.0, "purchase": 10.0}
LOG = pd.DataFrame(
    {
        "user_id": [1, 1, 2],
        "item_id": [5, 6, 5],
        "timestamp": [END - 10, END, END - 5],
        "type": ["view", "purchase", ""],
        "weight": [50.0, 20.0, 1.0],
    }
)


def later(*rows: tuple[int, int, int, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "type"])


def strengths(found: pd.DataFrame) -> dict[tuple[int, int], tuple[str, float]]:
    """As the file is read: a row counts its weight times its type's."""
    by_type = found["type"].map({**WEIGHTS, "": 1.0}).fillna(1.0)
    pairs = zip(found["user_id"], found["item_id"], strict=True)
    values = zip(found["type"], found["weight"] * by_type, strict=True)
    return dict(zip(pairs, values, strict=True))


def test_without_later_events_all_counts_what_it_did() -> None:
    found = strengths(continued(LOG, later(), END, WEIGHTS))
    assert found == {(1, 5): ("view", 50.0), (1, 6): ("purchase", 20.0), (2, 5): ("", 1.0)}


def test_later_events_add_up_and_those_that_the_log_has_do_not() -> None:
    events = later(
        (1, 5, END + 1, "purchase"),  # stronger than the log's many views
        (1, 6, END - 1, "purchase"),  # of a pair of the log and from before its end: is in it
        (2, 6, END - 1, "view"),  # came late
        (2, 6, END + 3, "view"),
        (2, 7, END + 3, "like"),  # training knows no such type
    )
    found = strengths(continued(LOG, events, END, WEIGHTS))
    assert found == {
        (1, 5): ("purchase", pytest.approx(60.0)),
        (1, 6): ("purchase", 20.0),
        (2, 5): ("", 1.0),
        (2, 6): ("view", 2.0),
        (2, 7): ("like", 1.0),
    }


def test_where_types_make_no_difference_events_go_on_to_count_alike() -> None:
    alike = LOG.assign(weight=1.0)
    events = later((1, 5, END + 1, "purchase"), (1, 5, END + 2, "view"), (2, 6, END + 1, "like"))
    found = continued(alike, events, END, None)
    assert found["weight"].tolist() == [1.0] * 4
    # With a file's own weights each further event counts 1.
    assert continued(LOG, events, END, None)["weight"].tolist() == [52.0, 20.0, 1.0, 1.0]
