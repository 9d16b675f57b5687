"""The bundled sample: a small generated data set, committed as CSV, read like a user's own files.

``python -m recsys.data.sample`` writes it again; the same libraries give the same bytes.
"""

import sys
from pathlib import Path

from recsys.data import files, generator
from recsys.errors import InputError
from recsys.schema import RATING, Dataset

FOLDER = Path("data/sample")
NUM_USERS, NUM_ITEMS, NUM_INTERACTIONS, SEED = 300, 400, 15_000, 7


def load(folder: str | Path = FOLDER) -> Dataset:
    """Read ``interactions.csv``, ``items.csv`` and ``users.csv`` of ``folder``.

    Raises:
        InputError: when a file is missing or broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"the sample in {folder}",
            "no such folder",
            "run from the root of the repository, or write it by python -m recsys.data.sample",
        )
    interactions, items, users = (
        folder / f"{table}.csv" for table in ("interactions", "items", "users")
    )
    return files.load(interactions, items, users, name="sample")


def write(folder: str | Path = FOLDER) -> None:
    """Generate the sample into ``folder``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = generator.load(NUM_USERS, NUM_ITEMS, NUM_INTERACTIONS, SEED)
    interactions = data.interactions.astype({RATING: "int64"})
    for name, frame in (
        ("interactions", interactions),
        ("items", data.items),
        ("users", data.users),
    ):
        assert frame is not None
        frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n", encoding="utf-8")


if __name__ == "__main__":
    write(*sys.argv[1:2])
