"""Models of RecBole and RecTools on the public data sets, for the tables of ``datasets.py``.

    python -m benchmarks.peers.on_sets --only office,retail,steam
    python benchmarks/datasets.py --only office,retail,steam

Needs the peers' Python, see ``compare.py``. Each model has its library's default settings; the
number of epochs is chosen on rows carved out of the training rows as the split carves out the test
rows. What is finished is kept in ``--runs`` and not fitted again.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.datasets import add_sets, check_sets, chosen
from benchmarks.datasets_registry import SETS
from benchmarks.datasets_unit import Wanted, configured, per_user_metrics
from benchmarks.harness import without_test_rows
from benchmarks.peers.compare import add_peers, as_rows, check_python, fill, run
from benchmarks.peers.exchange import K
from benchmarks.peers.merged import PEERS
from benchmarks.quality_tables import Unit
from benchmarks.runs import RESULT, save_result
from recsys.baselines import fit_popularity, rank
from recsys.errors import InputError
from recsys.evaluation import Targets
from recsys.training.composed_config import hold_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    add_sets(parser)
    add_peers(parser)
    parser.add_argument("--runs", type=Path, default=PEERS)
    arguments = parser.parse_args()
    check_sets(parser, arguments)
    # Neither matters to a peer.
    arguments.extra = ("text=none",)
    arguments.small = arguments.stage2 = arguments.lambdamart = False
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        run_all(arguments)
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


def run_all(arguments: argparse.Namespace) -> None:
    """Fit what is missing.

    Raises:
        InputError: when the peers' Python is missing or fails, or there is no set.
    """
    check_python(arguments.python)
    wanted = [(one, name) for one in chosen(arguments) for name in arguments.models]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn()) as progress:
        task = progress.add_task("", total=len(wanted))
        for one, name in wanted:
            progress.update(task, description=f"{one.title}, {name}")
            measure(one, name, arguments.python, arguments.runs / one.title)
            progress.advance(task)
    print(f"written to {arguments.runs}")


def measure(wanted: Wanted, name: str, python: Path, folder: Path) -> None:
    """Fit a peer and add it to the results in ``folder``, where it is not among them."""
    public = SETS[wanted.name]
    setting, _ = configured(wanted, public)
    held_out, identity = setting.data.split.test, setting.data.content_hash()
    data = without_test_rows(setting.data)
    before = _before(folder, identity)
    if before is not None and name in before.per_user:
        return
    parts = hold_out(setting.cfg, data.split.name)(data.train)
    lists, facts = run(python, name, as_rows(data.train, *parts), wanted.seed)

    # The peer has been handed training rows alone; the held-out ones are looked at from here on.
    targets = Targets.from_frame(held_out, data.users, data.items)
    popularity = fit_popularity(data.train, len(data.items))
    popular = rank(popularity, data.train, targets.user_idx, K, wanted.seed)
    ranked = torch.from_numpy(fill(lists, popular, targets.user_idx))
    per_user: dict[str, NDArray[np.float64]] = dict(before.per_user) if before else {}
    per_user[name] = per_user_metrics(ranked, targets, len(data.items), public.metrics)
    peers: dict[str, Any] = {**(before.content["peers"] if before else {}), name: facts}
    folder.mkdir(parents=True, exist_ok=True)
    save_result(
        folder,
        {
            "data": identity,
            "metrics": list(public.metrics),
            "peers": peers,
        },
        per_user,
    )


def _before(folder: Path, identity: str) -> Unit | None:
    """What is there of the same rows."""
    if not (folder / RESULT).is_file():
        return None
    unit = Unit.load(folder)
    return unit if unit.content["data"] == identity else None


if __name__ == "__main__":
    main()
