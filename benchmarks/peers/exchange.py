"""The files that pass between the project's environment and that of the peers.

Standard library, NumPy and pandas alone, in versions of either environment.
"""

import argparse
import json
import logging
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

K = 100
"""Items per list."""


@dataclass(frozen=True)
class Rows:
    """Columns ``user_id, item_id`` (numbers from 1) and ``timestamp`` (unix seconds).

    train: all training rows. fit, validation: the same in two parts, to choose epochs on.
    """

    train: pd.DataFrame
    fit: pd.DataFrame
    validation: pd.DataFrame

    def write(self, folder: Path) -> None:
        """Write one CSV file per part."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("train", "fit", "validation"):
            getattr(self, name).to_csv(folder / f"{name}.csv", index=False)

    @classmethod
    def read(cls, folder: Path) -> "Rows":
        return cls(*(pd.read_csv(folder / f"{n}.csv") for n in ("train", "fit", "validation")))


@dataclass(frozen=True)
class Lists:
    """user_id: int64 [U]. item_id: int64 [U, K], best first, 0 in empty slots."""

    user_id: NDArray[np.int64]
    item_id: NDArray[np.int64]


@dataclass(frozen=True)
class Fitted:
    """A peer's lists for the users of the training rows, and the epochs it was trained for."""

    lists: Lists
    epochs: int


def command(fit: Callable[[str, Rows, int, Path], Fitted], package: str) -> None:
    """The command line of a peer: fit a model on the rows of a folder, and write its lists there.

    Args:
        fit: (model, rows, seed, folder for its files) -> its lists.
        package: whose version is told.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    rows = Rows.read(arguments.folder)
    started = time.perf_counter()
    fitted = fit(arguments.model, rows, arguments.seed, arguments.folder)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    save(
        arguments.folder,
        fitted.lists,
        {
            "epochs": fitted.epochs,
            "seconds": seconds,
            "peak_gb": peak / (1e9 if sys.platform == "darwin" else 1e6),
            "versions": {name: version(name) for name in (package, "torch")},
        },
    )


def save(folder: Path, lists: Lists, facts: dict[str, Any]) -> None:
    """Write ``lists.npz`` and ``facts.json``."""
    np.savez_compressed(folder / "lists.npz", user_id=lists.user_id, item_id=lists.item_id)
    (folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")


def load(folder: Path) -> tuple[Lists, dict[str, Any]]:
    """What ``save`` wrote."""
    with np.load(folder / "lists.npz") as stored:
        lists = Lists(stored["user_id"], stored["item_id"])
    return lists, json.loads((folder / "facts.json").read_text())
