"""Runs get folders of their own, and an interrupted one goes on with what it has read."""

import json
import threading
from datetime import datetime
from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.training import run_folder
from recsys.training.run_folder import RunFolder, open_run

CONFIG = {"seed": 1}
READ = {"rows": "a"}


class _Same(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2030, 1, 1)


@pytest.fixture
def same_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "datetime", _Same)


def interrupt(run: RunFolder) -> None:
    """As a kill would: the lock goes with the process."""
    run.lock.release()


def test_runs_of_one_second_have_folders_of_their_own(same_second: None, tmp_path: Path) -> None:
    barrier, names, errors = threading.Barrier(8), [], []

    def start() -> None:
        barrier.wait()
        try:
            names.append(open_run(tmp_path, CONFIG, "x", False).name)
        except Exception as error:
            errors.append(error)

    starts = [threading.Thread(target=start) for _ in range(8)]
    for one in starts:
        one.start()
    for one in starts:
        one.join()
    assert not errors
    assert len(set(names)) == 8


def test_a_bundles_name_is_not_taken_again(same_second: None, tmp_path: Path) -> None:
    (tmp_path / "x-20300101-000000").mkdir(parents=True)
    assert open_run(tmp_path, CONFIG, "x", False).name == "x-20300101-000000-2"


def test_a_name_may_look_like_a_pattern(same_second: None, tmp_path: Path) -> None:
    names = [open_run(tmp_path, CONFIG, "x[b]*", False).name for _ in range(2)]
    assert names == ["x[b]*-20300101-000000", "x[b]*-20300101-000000-2"]


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    first = open_run(tmp_path, CONFIG, "x", False, READ)
    interrupt(first)
    changed = {**CONFIG, "resume": True, "name": "other", "threads": 3}
    again = open_run(tmp_path, changed, "y", True, READ)
    assert (again.name, again.resumed) == (first.name, True)


@pytest.mark.parametrize("read", [{"rows": "b"}, {"rows": "a", "stage 1": "c"}])
def test_it_does_not_go_on_with_something_else(read: dict[str, str], tmp_path: Path) -> None:
    interrupt(open_run(tmp_path, CONFIG, "x", False, READ))
    with pytest.raises(InputError, match=r"that the interrupted run x-.* has read; found other"):
        open_run(tmp_path, CONFIG, "x", True, read)
    # The error lets go of it.
    assert open_run(tmp_path, CONFIG, "x", True, READ).resumed


def test_a_run_that_goes_on_is_not_interrupted(tmp_path: Path) -> None:
    run = open_run(tmp_path, CONFIG, "x", False, READ)
    with pytest.raises(InputError, match="still going on"):
        open_run(tmp_path, CONFIG, "x", True, READ)
    run.close()
    with pytest.raises(InputError, match="found none;"):
        open_run(tmp_path, CONFIG, "x", True, READ)


def test_another_configuration_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no runs at all"):
        open_run(tmp_path, CONFIG, "x", True, READ)
    interrupt(open_run(tmp_path, CONFIG, "x", False, READ))
    with pytest.raises(InputError, match="found none;"):
        open_run(tmp_path, {"seed": 2}, "x", True, READ)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 10_000, '{"config": null}'])
def test_a_damaged_state_is_no_run_to_go_on_with(content: str, tmp_path: Path) -> None:
    run = open_run(tmp_path, CONFIG, "x", False, READ)
    interrupt(run)
    (run.path / "run.json").write_text(content)
    with pytest.raises(InputError, match="found none;"):
        open_run(tmp_path, CONFIG, "x", True, READ)


def test_closing_keeps_the_run_and_drops_its_checkpoints(tmp_path: Path) -> None:
    run = open_run(tmp_path, CONFIG, "x", False, READ)
    run.checkpoints.mkdir()
    run.close()
    assert not run.checkpoints.exists()
    assert json.loads((run.path / "run.json").read_text())["complete"]


def test_a_place_that_cannot_be_written_to_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a folder to write to in output_dir"):
        open_run(tmp_path / "file", CONFIG, "x", False)
    (tmp_path / "latest").mkdir()
    with pytest.raises(InputError, match="a link at"):
        open_run(tmp_path, CONFIG, "x", False)
