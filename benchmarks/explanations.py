"""Whether explanations explain: what the item that is named first does for a score.

    python benchmarks/explanations.py --bundle checkpoints/latest

For items of random users' lists: the list is made again, by both stages, from the history without
the item that explains it most, and from the history without another item of it, drawn at random.
The explanation holds when the former lowers the recommended item's score more.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from rich.table import Table

from benchmarks.harness import plain_table, present
from benchmarks.runs import ROOT, machine
from recsys.errors import InputError
from recsys.explanations import explain
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.schema import ExternalId

TOP_K = 5
NOT_LISTED = -np.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--bundle", type=Path, default=ROOT / "checkpoints" / "latest")
    parser.add_argument("--cases", type=int, default=500, help="default 500")
    parser.add_argument("--seed", type=int, default=0, help="of users and others (default 0)")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks/results/explanations.json"
    )
    arguments = parser.parse_args()
    if arguments.cases < 1:
        parser.error("--cases must be at least 1")
    torch.set_num_threads(1)
    try:
        recommender = Recommender.load(arguments.bundle, stage2=True)
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    content = measure(recommender, arguments.cases, arguments.seed)
    present("Explanations", [table_of(content)], content, arguments.output)


def measure(recommender: Recommender, num_cases: int, seed: int) -> dict[str, Any]:
    """The share of cases that hold, and how long an explanation of a list takes."""
    rng = np.random.default_rng(seed)
    users = rng.permutation(recommender.users.ids.to_numpy()).tolist()
    held: list[bool] = []
    seconds: list[float] = []
    for user in track(users, "Explaining", total=None):
        if len(held) >= num_cases:
            break
        request = Request(TOP_K, user_id=user)
        (ranked,) = recommender.recommend([request])
        started = time.perf_counter()
        explanations = explain(recommender, request, ranked)
        seconds.append(time.perf_counter() - started)
        batch = recommender.histories.batch([request])
        history = recommender.items.decode(batch.item_idx[batch.mask].numpy())
        for one in explanations[: num_cases - len(held)]:
            others = [item for item in history if not one.because or item != one.because[0].item_id]
            if not one.because or not others:
                held.append(False)
                continue
            other = others[int(rng.integers(len(others)))]
            without = [
                score_without(recommender, user, history, item, one.item_id)
                for item in (one.because[0].item_id, other)
            ]
            held.append(without[0] < without[1])
    return {
        "protocol": f"{recommender.model_version}; {len(held)} items of lists of {TOP_K}, "
        f"{len(seconds)} users.",
        "machine": machine(("torch", "onnxruntime")),
        "overrides": [],
        "cases": len(held),
        "held": sum(held) / len(held),
        "median_ms": 1000 * statistics.median(seconds),
        "slowest_ms": 1000 * max(seconds),
    }


def score_without(
    recommender: Recommender,
    user: ExternalId,
    history: Sequence[ExternalId],
    left_out: ExternalId,
    item: ExternalId,
) -> float:
    """An item's score when one item of the history is left out; lowest where it is no candidate."""
    kept = [one for one in history if one != left_out]
    request = Request(recommender.num_candidates, user_id=user, history=kept)
    (ranked,) = recommender.recommend([request])
    if item not in ranked.item_ids:
        return NOT_LISTED
    return float(ranked.scores[ranked.item_ids.index(item)])


def table_of(content: Mapping[str, Any]) -> Table:
    """One row."""
    table = plain_table("Explanations", content["protocol"])
    for header in ("cases", "explanation holds", "ms per list, median", "slowest"):
        table.add_column(header, justify="right")
    table.add_row(
        f"{content['cases']:,}",
        f"{content['held']:.1%}",
        f"{content['median_ms']:.0f}",
        f"{content['slowest_ms']:.0f}",
    )
    return table


if __name__ == "__main__":
    main()
