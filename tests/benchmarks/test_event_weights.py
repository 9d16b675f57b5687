"""The log of views and purchases, and how its figures are summed up."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.event_log import PURCHASE, VIEW, event_log
from benchmarks.event_weights import summary, table
from recsys.data import generator


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    return event_log(60, 80, 2400, seed=1).interactions


def test_half_of_the_rows_are_clicks_that_nobody_rated(events: pd.DataFrame) -> None:
    assert len(events) == 2 * 2400
    assert set(events["type"]) == {VIEW, PURCHASE}
    assert events["timestamp"].is_monotonic_increasing
    rated = generator.load(60, 80, 2400, seed=1).interactions
    pairs = pd.MultiIndex.from_frame(rated.loc[rated["rating"] >= 4, ["user_id", "item_id"]])
    bought = events[events["type"] == PURCHASE]
    assert pd.MultiIndex.from_frame(bought[["user_id", "item_id"]]).isin(pairs).all()
    assert 0.25 < len(bought) / len(pairs) < 0.45


def test_a_seed_gives_a_log(events: pd.DataFrame) -> None:
    assert event_log(60, 80, 2400, seed=1).interactions.equals(events)
    assert not event_log(60, 80, 2400, seed=2).interactions.equals(events)


def test_users_of_all_logs_are_paired() -> None:
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(2):
        alike = rng.random(200)
        draws.append(
            {
                "stage 1, alike": alike,
                "stage 1, weighted": alike + 0.1,
                "stage 2, alike": alike,
                "stage 2, weighted": alike,
            }
        )
    found = summary(draws, seed=0)
    first = found["ndcg@10"]["stage 1"]
    assert found["num_users"] == 400
    # The same difference for each user: an unpaired interval would be wide.
    assert first["low"] == pytest.approx(first["high"]) == pytest.approx(0.1)
    assert first["gain"] == pytest.approx(0.1 / first["alike"])
    assert found["ndcg@10"]["stage 2"]["difference"] == 0.0
    shown = table({**found, "weights": {"view": 1, "purchase": 10}})
    assert list(shown.columns[0].cells) == ["stage 1", "stage 2"]
