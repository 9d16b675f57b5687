"""A folder per training run, under ``<output_dir>/logs``: TensorBoard events and checkpoints.

``run.json`` says which configuration it belongs to and what it reads, so that an interrupted run is
found again and goes on with the same rows or not at all.
"""

import glob
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from recsys.bundle import MANIFEST_FILE, check_latest
from recsys.core.bounded import parse_json, read_bounded
from recsys.core.locks import Lock
from recsys.errors import InputError

RUN_FILE = "run.json"
LAST_CHECKPOINT = "last.ckpt"
_LOGS_FOLDER = "logs"
_LOCK_FILE = "lock"
_MAX_BYTES = 1_000_000
IGNORED_KEYS = ("resume", "name", "threads", "processes")
"""Of a configuration, which do not change what is trained."""


@dataclass(frozen=True)
class RunFolder:
    """name: of the run and of its bundle. resumed: whether it goes on from an interruption.

    lock: held while the run goes on, so that no other one resumes it.
    """

    path: Path
    name: str
    resumed: bool
    lock: Lock

    @property
    def checkpoints(self) -> Path:
        return self.path / "fit"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def kept(self) -> str:
        """What of the run's work can be gone on with, in words."""
        number = len(list(self.checkpoints.glob(f"**/{LAST_CHECKPOINT}")))
        has_stage1 = (self.checkpoints / self.name / MANIFEST_FILE).is_file()
        checkpoints = f"checkpoints of {number} fit{'s' * (number != 1)}"
        return f"stage 1 and {checkpoints}" if has_stage1 else checkpoints

    def close(self) -> None:
        """Mark the run as complete; its checkpoints are no longer needed."""
        _write_state(self.path, {**_read_state(self.path), "complete": True})
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.lock.release()


def open_run(
    root: Path,
    config: Mapping[str, Any],
    prefix: str,
    resume: bool,
    inputs: Mapping[str, str] | None = None,
    arguments: Sequence[str] | None = None,
) -> RunFolder:
    """Start a run named ``<prefix>-<time>``, or go on with the newest interrupted one.

    Args:
        inputs: a digest of each thing that the run reads, by what it is called in an error.
        arguments: the command line's overrides, see ``interrupted_arguments``; None: not kept.

    Raises:
        InputError: when ``resume`` is set and no interrupted run has this configuration, or the
            newest that has read something else; or when ``root`` cannot be written to.
    """
    logs, inputs = root / _LOGS_FOLDER, dict(inputs or {})
    kept = {key: value for key, value in config.items() if key not in IGNORED_KEYS}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()
    if resume:
        return _interrupted(logs, digest, inputs)
    try:
        logs.mkdir(parents=True, exist_ok=True)
        check_latest(root)
        folder = _claimed(root, logs, f"{prefix}-{datetime.now():%Y%m%d-%H%M%S}")
        lock = Lock(folder / _LOCK_FILE)
        state = {"config": digest, "inputs": inputs, "complete": False}
        if arguments is not None:
            state["arguments"] = [one for one in arguments if not one.startswith("resume=")]
        _write_state(folder, state)
    except OSError as error:
        found = f"{root} ({error.strerror})"
        raise InputError("a folder to write to in output_dir", found, "set output_dir=…") from error
    return RunFolder(folder, folder.name, resumed=False, lock=lock)


def interrupted_arguments(root: Path) -> Iterator[list[str]]:
    """Overrides of each interrupted run below ``root`` that nobody goes on with, newest first."""
    for folder, state in _runs(root / _LOGS_FOLDER):
        arguments = state.get("arguments")
        if state.get("complete") or not isinstance(arguments, list):
            continue
        lock = Lock(folder / _LOCK_FILE)
        is_free = lock.held
        lock.release()
        if is_free and all(isinstance(one, str) for one in arguments):
            yield arguments


def past_runs(root: Path, prefix: str) -> Iterator[tuple[Path, bool]]:
    """Folders of runs whose names begin so and that do not go on; and whether each was completed.

    A folder has its bundle's name.
    """
    for folder in sorted((root / _LOGS_FOLDER).glob(f"{glob.escape(prefix)}*")):
        lock = Lock(folder / _LOCK_FILE)
        lock.release()
        if lock.held:
            yield folder, _read_state(folder).get("complete") is True


def _claimed(root: Path, logs: Path, name: str) -> Path:
    """A folder that no other run has: making it decides, also between runs of one second."""
    for number in itertools.count(1):
        folder = logs / (name if number == 1 else f"{name}-{number}")
        if not (root / folder.name).exists():
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
    raise AssertionError


def _interrupted(logs: Path, digest: str, inputs: Mapping[str, str]) -> RunFolder:
    """The newest run of this configuration that has not ended and that nobody goes on with."""
    found = "no runs at all"
    for folder, state in _runs(logs):
        found = "none" if found == "no runs at all" else found
        if state.get("config") != digest or state.get("complete"):
            continue
        lock = Lock(folder / _LOCK_FILE)
        if not lock.held:
            found = f"{folder.name}, which is still going on"
            continue
        read = state.get("inputs")
        read = read if isinstance(read, dict) else {}
        others = [what for what, digest in inputs.items() if read.get(what) != digest]
        if others:
            lock.release()
            raise InputError(
                f"the {' and '.join(others)} that the interrupted run {folder.name} has read",
                f"other {' and '.join(others)}",
                "restore what has changed since, or leave out resume=true to start anew",
            )
        (folder / RUN_FILE).touch()  # the newest again
        return RunFolder(folder, folder.name, resumed=True, lock=lock)
    raise InputError(
        f"an interrupted run of this configuration in {logs}",
        found,
        "give resume=true alone (and output_dir, where that was given), or leave it out",
    )


def _runs(logs: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder and state of each run, newest first."""
    found = []
    for file in logs.glob(f"*/{RUN_FILE}"):
        with suppress(OSError):  # removed since it was listed
            found.append((file.stat().st_mtime_ns, file.parent))
    for _, folder in sorted(found, reverse=True):
        yield folder, _read_state(folder)


def _read_state(folder: Path) -> dict[str, Any]:
    """Empty where there is none that can be read."""
    try:
        state = parse_json(read_bounded(folder / RUN_FILE, _MAX_BYTES, "remove it"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    partial = folder / f".{RUN_FILE}.partial"
    partial.write_text(json.dumps(state))
    partial.replace(folder / RUN_FILE)
