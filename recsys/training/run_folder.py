"""A folder per training run, under ``<output_dir>/logs``: TensorBoard events and checkpoints.

``run.json`` says which configuration it belongs to, so that an interrupted run is found again.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from recsys.errors import InputError

RUN_FILE = "run.json"
# Keys that do not change what is trained.
_IGNORED_KEYS = ("resume", "name")


@dataclass(frozen=True)
class RunFolder:
    """name: of the run and of its bundle. resumed: whether it goes on from an interruption."""

    path: Path
    name: str
    resumed: bool

    @property
    def checkpoints(self) -> Path:
        return self.path / "fit"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def close(self) -> None:
        """Mark the run as complete; its checkpoints are no longer needed."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        state = json.loads((self.path / RUN_FILE).read_text())
        (self.path / RUN_FILE).write_text(json.dumps(state | {"complete": True}))


def open_run(root: Path, config: Mapping[str, Any], prefix: str, resume: bool) -> RunFolder:
    """Start a run named ``<prefix>-<time>``, or go on with the newest interrupted one.

    Raises:
        InputError: when ``resume`` is set and no interrupted run has this configuration.
    """
    logs = root / "logs"
    kept = {key: value for key, value in config.items() if key not in _IGNORED_KEYS}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()
    if resume:
        runs = sorted(logs.glob(f"*/{RUN_FILE}"), key=lambda path: path.stat().st_mtime_ns)
        for run in reversed(runs):
            state = json.loads(run.read_text())
            if state["config"] == digest and not state["complete"]:
                return RunFolder(run.parent, run.parent.name, resumed=True)
        raise InputError(
            f"an interrupted run of this configuration in {logs}",
            "none" if runs else "no runs at all",
            "give the options of the interrupted run, or leave out resume=true",
        )
    name = _unused_name(root, logs, f"{prefix}-{datetime.now():%Y%m%d-%H%M%S}")
    (logs / name).mkdir(parents=True)
    (logs / name / RUN_FILE).write_text(json.dumps({"config": digest, "complete": False}))
    return RunFolder(logs / name, name, resumed=False)


def _unused_name(root: Path, logs: Path, name: str) -> str:
    taken = [path.name for path in (*root.glob(f"{name}*"), *logs.glob(f"{name}*"))]
    return name if name not in taken else f"{name}-{len(taken) + 1}"
