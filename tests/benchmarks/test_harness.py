import json
import sys

import pytest
import torch

from benchmarks.harness import (
    argument_parser,
    cell,
    mean_metrics,
    parse_arguments,
    plain_table,
    present,
    run_draws,
    summarize,
)
from recsys.evaluation import Targets


def test_summaries_are_mean_and_sample_deviation_of_nested_numbers():
    content = summarize([{"a": {"b": 1.0}, "n": 3}, {"a": {"b": 2.0}, "n": 3}])
    assert content["mean"] == {"a": {"b": 1.5}, "n": 3.0}
    assert content["sd"]["a"]["b"] == pytest.approx(0.5**0.5)
    assert content["draws"][1] == {"a": {"b": 2.0}, "n": 3}
    assert cell(content, "a", "b") == "1.500±.707"


def test_data_that_cannot_be_had_ends_a_benchmark_in_one_line(monkeypatch):
    files = ["data.interactions=nowhere.csv", "data.items=nowhere.csv"]
    monkeypatch.setattr(sys, "argv", ["benchmark", "data=files", *files])
    arguments = parse_arguments(argument_parser("A benchmark."))
    with pytest.raises(SystemExit) as end:
        run_draws(arguments, lambda setting, seed: {})
    assert str(end.value).startswith("error: expected ")
    assert "nowhere.csv" in str(end.value)
    assert "\n" not in str(end.value)


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
    arguments = parse_arguments(argument_parser(""))
    assert (arguments.draws, arguments.stage2) == (2, True)
    assert arguments.overrides == ["data=sample"]


@pytest.mark.parametrize("wrong", [["--draws", "0"], ["--seed", "-1"]])
def test_counts_out_of_range_are_refused(monkeypatch, wrong):
    monkeypatch.setattr(sys, "argv", ["x", *wrong])
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(argument_parser(""))


def test_figures_and_tables_are_written_beside_each_other(tmp_path, capsys):
    table = plain_table("2 systems", "higher is better")
    table.add_column("system")
    table.add_column("cold\nR@20", justify="right")
    table.add_row("text kNN", ".250±.010")
    table.add_row("random", ".120±.005")
    machine = {"processor": "x", "cores": 2, "commit": "abc", "versions": {"torch": "1"}}
    content = {"protocol": "How.", "machine": machine, "overrides": ["data=sample"], "mean": 0.25}
    output = tmp_path / "new" / "cold.json"
    present("Cold items", [table], content, output)
    assert json.loads(output.read_text()) == content
    page = output.with_suffix(".md").read_text()
    assert page.splitlines()[-4:] == [
        "| system | cold R@20 |",
        "|---|---:|",
        "| text kNN | .250±.010 |",
        "| random | .120±.005 |",
    ]
    for part in ("# Cold items\n", "\nHow.\n", "Commit abc; x, 2 cores; torch 1.", "`data=sample`"):
        assert part in page
    assert "text kNN" in capsys.readouterr().out


def test_without_an_output_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    present("t", [], {}, None)
    assert not list(tmp_path.iterdir())
