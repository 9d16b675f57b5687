"""The benchmark of explanations, on a bundle with random weights."""

import numpy as np
import pytest

from benchmarks import explanations
from recsys.recommender import Recommender
from recsys.request import Request


def test_cases_are_counted_and_most_hold(untrained_recommender: Recommender) -> None:
    content = explanations.measure(untrained_recommender, 60, seed=0)
    assert content["cases"] == 60
    assert content["held"] > 0.7
    assert explanations.table_of(content).columns[0].header == "cases"


def test_a_score_without_an_item_is_that_of_the_shorter_history(
    untrained_recommender: Recommender,
) -> None:
    shorter = Request(12, history=[1005, 1009, 1011])
    (ranked,) = untrained_recommender.recommend([shorter])
    history = [1005, 1007, 1009, 1011]
    for item, score in zip(ranked.item_ids, ranked.scores, strict=True):
        found = explanations.score_without(untrained_recommender, -1, history, 1007, item)
        assert found == pytest.approx(float(score))
    assert explanations.score_without(untrained_recommender, -1, history, 1007, 1009) == -np.inf
