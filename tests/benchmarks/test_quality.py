"""The quality benchmark: nothing held out reaches training, results are kept, figures are right."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import quality, runs
from benchmarks.harness import without_test_rows
from benchmarks.quality_tables import Unit, bars_table, difference, markdown, summarize

METRICS = ["recall@5", "ndcg@5", "recall@10", "ndcg@10", "recall@100", "ndcg@100"]
QUICK = ["data=sample", "data.split=random", "experiment=quick"]


def unit(offset: float, users: int = 8) -> Unit:
    """Stage 2 is better than stage 1 by ``offset`` for every user."""
    rng = np.random.default_rng(0)
    stage1 = rng.random((users, len(METRICS))) / 2
    content = {
        "protocol": "a test",
        "n_users": users,
        "metrics": METRICS,
        "seconds": {"stage1": 2.0},
        "peak_gb": {"stage1": 0.5},
    }
    return Unit(content, {"stage1": stage1, "stage2": stage1 + offset})


def test_means_and_deviations_over_seeds() -> None:
    summary = summarize([unit(0.1), unit(0.3)])["systems"]
    gap = summary["stage2"]["ndcg@10"]["mean"] - summary["stage1"]["ndcg@10"]["mean"]
    assert gap == pytest.approx(0.2)
    assert summary["stage1"]["ndcg@10"]["sd"] == 0.0
    assert summary["stage2"]["ndcg@10"]["sd"] == pytest.approx(np.std([0.1, 0.3], ddof=1))


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    found = difference([unit(0.1), unit(0.3)], "stage2", "stage1", METRICS)["recall@5"]
    assert found == pytest.approx({"mean": 0.2, "low": 0.2, "high": 0.2})


def test_seeds_with_other_users_are_pooled() -> None:
    found = difference([unit(0.1, users=9), unit(0.4, users=3)], "stage2", "stage1", METRICS)
    assert found["recall@5"]["mean"] == pytest.approx((9 * 0.1 + 3 * 0.4) / 12)


def test_bars_say_what_was_missed() -> None:
    systems = {name: {key: {"mean": 0.34} for key in METRICS} for name in ("stage1", "stage2")}
    rows = {line.split("|")[1].strip(): line for line in bars_table({"systems": systems})[2:]}
    assert rows["stage 2 (cross-encoder), N@10"].endswith("| yes |")
    assert rows["stage 2 (cross-encoder), R@100"].endswith("| **no** |")


def test_the_report_holds_every_protocol() -> None:
    machine = {"processor": "x", "cores": 2, "commit": "c", "versions": {"torch": "1"}}
    text, content = markdown({"ua": [unit(0.1)], "random": [unit(0.2)]}, machine)
    assert "## ua" in text
    assert "## random" in text
    assert content["protocols"]["random"]["num_seeds"] == 1


def test_training_is_handed_no_held_out_row(data) -> None:
    training = without_test_rows(data)
    assert not len(training.split.test)
    assert len(data.split.test)
    pd.testing.assert_frame_equal(training.split.train, data.split.train)


@pytest.mark.slow
def test_a_unit_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = quality.run_unit("ua", 0, QUICK, tmp_path)
    assert set(first.per_user) >= {"popularity", "als", "ease", "lambdamart", "stage1", "stage2"}
    (folder,) = tmp_path.iterdir()
    written = json.loads((folder / "result.json").read_text())
    for system, means in written["means"].items():
        assert list(means.values()) == pytest.approx(first.per_user[system].mean(axis=0))

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a finished unit is run again")

    monkeypatch.setattr(runs.subprocess, "run", fail)
    again = quality.run_unit("ua", 0, QUICK, tmp_path)
    np.testing.assert_array_equal(again.per_user["stage2"], first.per_user["stage2"])
