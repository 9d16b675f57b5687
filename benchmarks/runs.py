"""Measurements in processes of their own, kept on disk so that an interrupted benchmark goes on."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
RESULT = "result.json"


def fingerprint(arguments: Sequence[str], code: Sequence[str]) -> str:
    """Changes with the arguments and with any file that a result depends on.

    Args:
        code: the benchmark's own files, relative to the repository; those of the product always
            count.
    """
    digest = hashlib.sha256("\n".join(arguments).encode())
    for pattern in ("recsys/**/*.py", "configs/**/*.yaml", "train.py", *code):
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def run_once(
    name: str, script: str, arguments: Sequence[str], code: Sequence[str], runs: Path
) -> Path:
    """The folder of a finished measurement: one that is on disk, or made by a new process.

    ``script --unit FOLDER *arguments`` must write ``result.json`` into the folder, last.

    Args:
        name: what messages call it; with the fingerprint, the name of the folder below ``runs``.

    Raises:
        InputError: when the process fails; its last line is in the message.
    """
    folder = runs / f"{name}-{fingerprint(arguments, code)}"
    if not (folder / RESULT).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [sys.executable, script, "--unit", str(folder), *arguments]
        with (folder / "log.txt").open("w") as log:
            exit_code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
        if exit_code:
            tail = (folder / "log.txt").read_text().strip().splitlines()[-1:]
            raise InputError(f"{name} to finish", " ".join(tail), f"see {folder}")
        shutil.rmtree(folder / "fit", ignore_errors=True)
    return folder


def save_result(
    folder: Path, content: Mapping[str, Any], per_user: Mapping[str, NDArray[np.float64]]
) -> None:
    """Write ``result.json`` and ``per_user.npz``, as ``quality_tables.Unit`` reads them."""
    arrays: dict[str, Any] = dict(per_user)
    np.savez_compressed(folder / "per_user.npz", **arrays)
    # Last, and at once: a result that is there is complete.
    partial = folder / f"{RESULT}.partial"
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.rename(folder / RESULT)


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """What the figures were measured on; versions of the named packages included."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.split(":", 1)[1].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else [])
        if line.startswith("model name")
    ]
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True)
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "commit": commit.stdout.strip()[:12] + (" (changed)" if dirty.stdout.strip() else ""),
        "versions": {name: version(name) for name in packages},
    }


def machine_line(measured_on: Mapping[str, Any]) -> str:
    """``machine``'s answer as a sentence."""
    versions = ", ".join(f"{name} {number}" for name, number in measured_on["versions"].items())
    processor = f"{measured_on['processor']}, {measured_on['cores']} cores"
    return f"Commit {measured_on['commit']}; {processor}; {versions}."


def counted(number: int, noun: str) -> str:
    """``1 draw``, ``2 draws``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
