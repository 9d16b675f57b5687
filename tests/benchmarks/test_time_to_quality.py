"""The board of training times: a real run, and rows that are kept."""

import json
from pathlib import Path

import pytest

from benchmarks import time_to_quality
from benchmarks.time_to_quality import TARGETS, board, known_rows, measure

ROW = {
    "date": "2026-01-02",
    "commit": "abc",
    "seconds": 171.6,
    "cpu_seconds": 263.4,
    "peak_gb": 1.23,
    "metrics": {"ndcg@10": 0.3388, "recall@100": 0.7614},
    "note": "folds side by side",
}


def test_a_row_that_misses_a_target_says_so() -> None:
    missed = ROW | {"metrics": ROW["metrics"] | {"recall@100": 0.7}}
    table = board([ROW, missed])
    columns = {str(column.header): list(column.cells) for column in table.columns}
    assert columns["reached"] == ["yes", "no"]
    assert columns["seconds"] == ["172", "172"]
    assert set(TARGETS) < set(columns)


def test_rows_are_added_to_those_on_the_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "board.json"
    assert known_rows(file) == []
    monkeypatch.setattr(time_to_quality, "measure", lambda _: dict(ROW))
    for note in ("first", "second"):
        monkeypatch.setattr("sys.argv", ["x", "--note", note, "--output", str(file)])
        time_to_quality.main()
    assert [row["note"] for row in json.loads(file.read_text())["rows"]] == ["first", "second"]
    assert "second" in file.with_suffix(".md").read_text()


@pytest.mark.slow
def test_a_run_is_timed_with_the_processes_that_it_starts() -> None:
    row = measure(["data=sample", "experiment=quick", "logger=none"])
    assert 0 < row["metrics"]["ndcg@10"] < 1
    assert row["cpu_seconds"] > 1
    assert row["seconds"] > 1
    assert 0.1 < row["peak_gb"] < 10
