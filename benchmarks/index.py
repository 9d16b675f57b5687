"""What each index finds of the true best candidates of a bundle's users, and what a search costs.

    python benchmarks/index.py --bundle checkpoints/latest

Builds the indexes of configs/index over the bundle's candidate vectors, and searches each for users
who had no part in building it, without the items of their histories: as many at a time as a busy
server has. CPU time, in one thread.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.table import Table

from benchmarks.harness import plain_table, present
from benchmarks.runs import ROOT, machine
from recsys.artifact import load_artifact
from recsys.cli import CONFIG_DIR
from recsys.errors import InputError
from recsys.index import CandidateIndex, Exclusion
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.training.query_sample import sample_queries

LENGTH, AT_A_TIME, MOST_USERS, REPEATS = 200, 8, 800, 3
INDEXES = ("flat", "auto", "hnsw", "ivfpq")
"""The first one is exact."""
_SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--bundle", type=Path, default=ROOT / "checkpoints" / "latest")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/index.json")
    arguments = parser.parse_args()
    try:
        content = measure(arguments.bundle)
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    present("Indexes", [index_table(content)], content, arguments.output)


def measure(bundle: Path, names: Sequence[str] = INDEXES) -> dict[str, Any]:
    """Build and search.

    Raises:
        InputError: when the bundle cannot be read, or has too few items for an index.
    """
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    artifact = load_artifact(bundle)
    recommender = Recommender(artifact)
    retriever = recommender.retriever
    embeddings = retriever.embeddings.float().numpy()
    sample = partial(
        sample_queries, artifact.two_tower, artifact.histories, artifact.max_query_history
    )
    users = np.random.default_rng(_SEED).permutation(artifact.users.ids)[:MOST_USERS].tolist()
    history = recommender.histories.batch([Request(LENGTH, user_id=user) for user in users])
    queries = retriever.encode(history).float().numpy()
    seen = [items[items > 0] for items in history.item_idx.numpy()]
    rows, true = {}, None
    for name in names:
        started = time.process_time()
        cfg = OmegaConf.load(CONFIG_DIR / "index" / f"{name}.yaml")
        index = instantiate(cfg).build(embeddings, sample)
        built = time.process_time() - started
        found, milliseconds = searched(index, queries, [index.exclusion(one) for one in seen])
        true = found if true is None else true
        rows[name] = {"built": built, "ms": milliseconds, "recall": recall(found, true)}
    return {
        "protocol": f"{artifact.manifest.get('dataset')}: {len(artifact.items):,} items, "
        f"{embeddings.shape[1]} numbers each; the best {LENGTH} of {len(users):,} users, "
        f"{AT_A_TIME} at a time.",
        "machine": machine(("faiss-cpu",)),
        "overrides": [],
        "indexes": rows,
    }


def searched(
    index: CandidateIndex, queries: np.ndarray, exclude: list[Exclusion]
) -> tuple[np.ndarray, float]:
    """Items int64 [U, LENGTH], and the CPU milliseconds of a query, the best of some turns."""
    taken = []
    for _ in range(REPEATS):
        found, started = [], time.process_time()
        for start in range(0, len(queries), AT_A_TIME):
            some = slice(start, start + AT_A_TIME)
            found.append(index.search(queries[some], LENGTH, exclude[some])[1])
        taken.append(1e3 * (time.process_time() - started) / len(queries))
    return np.concatenate(found), min(taken)


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """The share of the true items that is found, those of a user each."""
    of_user = int(true.max()) + 1
    places = of_user * np.arange(len(true))[:, None]
    return float(np.isin(true + places, found + places)[true > 0].mean())


def index_table(content: dict[str, Any]) -> Table:
    """One row per index."""
    table = plain_table("indexes", "CPU time in one thread; recall beside exact search")
    table.add_column("index")
    for header in ("ms a query", "recall", "built in s"):
        table.add_column(header, justify="right")
    for name, row in content["indexes"].items():
        cells = f"{row['ms']:.3f}", f"{row['recall']:.1%}", f"{row['built']:.1f}"
        table.add_row(name, *cells)
    return table


if __name__ == "__main__":
    main()
