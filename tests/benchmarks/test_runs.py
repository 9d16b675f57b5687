"""Measurements are made once per code and arguments, and a failed one says why."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import runs
from benchmarks.quality_tables import Unit
from benchmarks.runs import counted, fingerprint, run_once, save_result
from recsys.errors import InputError

SCRIPT = """
import pathlib, sys
assert sys.argv[1] == "--unit"
folder = pathlib.Path(sys.argv[2])
if "fail" in sys.argv:
    sys.exit("error: told to fail")
(folder / "fit").mkdir()
with (folder.parent / "calls").open("a") as calls:
    print(*sys.argv[3:], file=calls)
(folder / "result.json").write_text("{}")
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "measure.py"
    path.write_text(SCRIPT)
    return str(path)


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


def test_a_finished_measurement_is_not_made_again(tmp_path: Path, script: str) -> None:
    first = run_once("a", script, ["--seed", "0"], [], tmp_path)
    again = run_once("a", script, ["--seed", "0"], [], tmp_path)
    assert first == again
    assert calls(tmp_path) == ["--seed 0"]
    assert not (first / "fit").exists()


def test_other_arguments_are_another_measurement(tmp_path: Path, script: str) -> None:
    folders = {run_once("a", script, ["--seed", seed], [], tmp_path) for seed in ("0", "1")}
    assert len(folders) == 2
    assert calls(tmp_path) == ["--seed 0", "--seed 1"]


def test_an_interrupted_measurement_starts_from_an_empty_folder(
    tmp_path: Path, script: str
) -> None:
    folder = run_once("a", script, [], [], tmp_path)
    (folder / "result.json").unlink()
    (folder / "stale").touch()
    assert run_once("a", script, [], [], tmp_path) == folder
    assert not (folder / "stale").exists()
    assert len(calls(tmp_path)) == 2


def test_a_failure_tells_its_last_line_and_leaves_no_result(tmp_path: Path, script: str) -> None:
    with pytest.raises(InputError, match="told to fail"):
        run_once("a", script, ["fail"], [], tmp_path)
    assert not list(tmp_path.glob("*/result.json"))


def test_code_and_arguments_make_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    (tmp_path / "own.py").write_text("1")
    before = fingerprint(["seed=0"], ["own.py"])
    assert before == fingerprint(["seed=0"], ["own.py"])
    assert before != fingerprint(["seed=1"], ["own.py"])
    (tmp_path / "own.py").write_text("2")
    assert before != fingerprint(["seed=0"], ["own.py"])
    unchanged = fingerprint([], [])
    (tmp_path / "recsys").mkdir()
    (tmp_path / "recsys" / "model.py").write_text("the product")
    assert unchanged != fingerprint([], [])


def test_what_is_saved_is_what_the_tables_read(tmp_path: Path) -> None:
    save_result(tmp_path, {"metrics": ["ndcg@10"]}, {"full": np.array([[0.25], [0.5]])})
    unit = Unit.load(tmp_path)
    assert unit.content == json.loads((tmp_path / "result.json").read_text())
    assert unit.per_user["full"].tolist() == [[0.25], [0.5]]
    assert not list(tmp_path.glob("*.partial"))


def test_counts_mind_the_singular() -> None:
    assert [counted(n, "draw") for n in (1, 2, 1200)] == ["1 draw", "2 draws", "1,200 draws"]
