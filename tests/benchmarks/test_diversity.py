"""The benchmark of diversity: lists are re-arranged, judged by rows held out, and drawn."""

from xml.dom import minidom

import numpy as np
import pytest
import torch

from benchmarks.ablation_variants import carve_validation
from benchmarks.diversity import DIALS, figures, rearranged, results_table
from benchmarks.diversity_charts import drawing, trade_off_chart
from benchmarks.harness import mean_metrics
from recsys.evaluation import ranked_tensor
from recsys.request import Request
from recsys.rules import ItemTable, Rules
from tests.benchmarks.conftest import FirstItems


def vectors_of(number: int) -> torch.Tensor:
    # Not negative, as likeness of texts seldom is: MMR takes opposites for merely different.
    vectors = np.abs(np.random.default_rng(0).normal(size=(number, 6)))
    vectors[0] = 0
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return torch.from_numpy((vectors / lengths).astype(np.float32))


@pytest.fixture(scope="module")
def measured(data) -> dict:
    carved, targets = carve_validation(data, seed=0)
    recommender = FirstItems(data.items.ids.tolist())
    return figures(recommender, carved, vectors_of(61), targets, rerank=False)


def test_at_zero_both_methods_give_the_list_as_it_is_served(data, measured):
    _, targets = carve_validation(data, seed=0)
    served = ranked_tensor([list(range(101, 111))] * len(targets), data.items, 10)
    expected = mean_metrics(served, targets, 60, ["ndcg@10"])["ndcg@10"]
    for method in ("mmr", "dpp"):
        assert measured[method]["0.0"]["ndcg@10"] == pytest.approx(expected)
        assert measured[method]["0.0"]["coverage@10"] == pytest.approx(10 / 60)


def test_lists_are_more_diverse_at_the_end_of_the_dial(measured):
    for method in ("mmr", "dpp"):
        assert list(measured[method]) == [str(dial) for dial in DIALS]
        dial = [values["diversity@10"] for values in measured[method].values()]
        assert dial[-1] > dial[0] + 0.05


def test_lists_are_cut_to_ten_after_they_are_arranged(data):
    answers = FirstItems(data.items.ids.tolist()).recommend([Request(top_k=50)])
    table = ItemTable.from_frame(data.catalog.items)
    rules = Rules(diversity=1.0)
    (items,) = rearranged(answers, rules, data, table, vectors_of(61).numpy())
    assert len(items) == 10
    assert items[0] == 101
    assert not set(items) <= set(range(101, 111))


def test_the_table_and_the_drawing_show_all_values_of_the_dial(measured):
    content = {"dataset": "tiny", "draws": [measured], "mean": measured}
    assert results_table(content).row_count == len(DIALS)
    assert len(trade_off_chart(content).rows) == len(DIALS)
    picture = minidom.parseString(drawing(content))
    assert len(picture.getElementsByTagName("path")) == 2 * len(DIALS)
