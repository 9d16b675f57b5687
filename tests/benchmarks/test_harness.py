import sys

import pytest
import torch

from benchmarks.harness import cell, mean_metrics, parse_arguments, summarize
from recsys.evaluation import Targets


def test_summaries_are_mean_and_sample_deviation_of_nested_numbers():
    content = summarize([{"a": {"b": 1.0}, "n": 3}, {"a": {"b": 2.0}, "n": 3}])
    assert content["mean"] == {"a": {"b": 1.5}, "n": 3.0}
    assert content["sd"]["a"]["b"] == pytest.approx(0.5**0.5)
    assert content["draws"][1] == {"a": {"b": 2.0}, "n": 3}
    assert cell(content, "a", "b") == "1.500±.707"


def test_a_single_draw_has_no_deviation():
    assert summarize([{"a": 0.25}])["sd"] == {"a": 0.0}


def test_metrics_are_averaged_over_users():
    targets = Targets(
        user_idx=torch.tensor([1, 2]).numpy(),
        rows=torch.tensor([0, 0, 1]),
        items=torch.tensor([3, 4, 1]),
        num_relevant=torch.tensor([2, 1]),
    )
    ranked = torch.tensor([[3, 5], [2, 0]])
    metrics = mean_metrics(ranked, targets, 5, ["recall@1", "recall@2", "ndcg@1"])
    assert metrics == {"recall@1": 0.25, "recall@2": 0.25, "ndcg@1": 0.5}


def test_overrides_and_options_mix(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--draws", "2", "data=sample", "--stage2"])
    arguments = parse_arguments("")
    assert (arguments.draws, arguments.stage2) == (2, True)
    assert arguments.overrides == ["data=sample"]


@pytest.mark.parametrize("wrong", [["--draws", "0"], ["--seed", "-1"]])
def test_counts_out_of_range_are_refused(monkeypatch, wrong):
    monkeypatch.setattr(sys, "argv", ["x", *wrong])
    with pytest.raises(SystemExit, match="2"):
        parse_arguments("")
