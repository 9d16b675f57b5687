"""``resume=true`` alone takes the other options from the interrupted run."""

from pathlib import Path

import pytest

from recsys.training.resumed_arguments import resumed_arguments
from recsys.training.run_folder import open_run

ARGUMENTS = ["data=sample", "seed=5", "retrieval.epochs=3"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """With a run that has been interrupted."""
    interrupted(tmp_path, [*ARGUMENTS, f"output_dir={tmp_path}"])
    return tmp_path


def interrupted(root: Path, arguments: list[str] | None) -> None:
    open_run(root, {"of": arguments}, "x", False, arguments=arguments).lock.release()


def test_the_options_are_those_of_the_interrupted_run(root: Path) -> None:
    given = ["resume=true", f"output_dir={root}"]
    assert resumed_arguments(given) == [*ARGUMENTS, *given]


def test_a_name_of_a_folder_may_be_quoted(root: Path) -> None:
    given = ["resume=True", f"output_dir='{root}'"]
    assert resumed_arguments(given) == [*ARGUMENTS, *given]


def test_options_that_agree_may_be_repeated_and_those_of_the_machine_changed(root: Path) -> None:
    given = ["seed=5", "resume=true", f"output_dir={root}", "threads=2"]
    assert resumed_arguments(given) == ["data=sample", "retrieval.epochs=3", *given]


@pytest.mark.parametrize("other", ["seed=6", "stage=1", "~baselines.ease"])
def test_options_that_do_not_agree_stay_as_they_are(root: Path, other: str) -> None:
    given = ["resume=true", f"output_dir={root}", other]
    assert resumed_arguments(given) == given


def test_without_resume_nothing_is_added(root: Path) -> None:
    for given in (["data=sample", f"output_dir={root}"], ["resume=false", f"output_dir={root}"]):
        assert resumed_arguments(given) == given


def test_the_newest_run_that_agrees_is_taken(root: Path) -> None:
    given = ["resume=true", f"output_dir={root}"]
    interrupted(root, ["data=ml100k"])
    assert resumed_arguments(given) == ["data=ml100k", *given]
    assert resumed_arguments([*given, "seed=5"])[0] == "data=sample"


def test_runs_that_have_ended_or_go_on_or_tell_nothing_are_passed_over(root: Path) -> None:
    given = ["resume=true", f"output_dir={root}"]
    ended = open_run(root, {"n": 1}, "x", False, arguments=["seed=1"])
    ended.close()
    going_on = open_run(root, {"n": 2}, "x", False, arguments=["seed=2"])
    interrupted(root, None)
    assert resumed_arguments(given) == [*ARGUMENTS, *given]
    going_on.lock.release()
    assert resumed_arguments(given) == ["seed=2", *given]
