"""Interrupted by real signals, real commands end in order and say how to go on."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONS = [
    *("data=synthetic", "data.num_users=60", "data.num_items=50", "data.num_interactions=1500"),
    *(
        "text=none",
        "experiment=quick",
        "retrieval.epochs=2",
        "reranking.num_folds=3",
        "logger=none",
    ),
]


def started(root: Path, *options: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "train.py", *options, f"output_dir={root}"],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A runner in the background ignores it, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def interrupted(
    process: "subprocess.Popen[str]", number: signal.Signals, when: Callable[[], bool]
) -> list[str]:
    """The lines of a process that gets a signal once ``when`` is so."""
    try:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and process.poll() is None and not when():
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()[0]
        os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output
    return output.splitlines()


@pytest.mark.slow
def test_it_names_what_is_kept_and_a_command_that_goes_on(tmp_path: Path) -> None:
    def has_checkpoint() -> bool:
        return any(tmp_path.glob("logs/*/fit/search/last.ckpt"))

    lines = interrupted(started(tmp_path, *OPTIONS), signal.SIGINT, has_checkpoint)
    (folder,) = (tmp_path / "logs").iterdir()
    (line,) = [line for line in lines if line.startswith("interrupted: ")]
    assert line == lines[-1]
    assert line.startswith(f"interrupted: {folder} keeps checkpoints of ")
    command = line.partition("go on with: ")[2]
    assert command == f"python train.py resume=true output_dir={tmp_path}"

    going_on = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert going_on.returncode == 0, going_on.stderr
    assert (tmp_path / "latest").readlink().name == folder.name
    metrics = json.loads((tmp_path / "latest" / "metrics.json").read_text())
    assert metrics["dataset"] == "synthetic"
    assert json.loads((folder / "run.json").read_text())["complete"]


def test_before_anything_is_trained_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    options = [*OPTIONS, "data.num_users=20000", "data.num_interactions=900000"]
    process = started(tmp_path, *options)
    assert process.stdout is not None
    while "Data ·" not in process.stdout.readline():
        assert process.poll() is None
    lines = interrupted(process, signal.SIGINT, lambda: True)
    assert lines[-1].startswith("interrupted: nothing was trained yet; start again")
    assert not (tmp_path / "logs").exists()
