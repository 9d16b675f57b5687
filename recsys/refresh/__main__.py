"""``python -m recsys.refresh``: train again on what has come since, promote only if not worse."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from recsys.cli import configure_logging
from recsys.errors import InputError
from recsys.refresh.verdict import Limits
from recsys.training.interruption import interruptible

KEY_VARIABLE = "RECSYS_API_KEY"
_USAGE_ERROR, _KEPT = 2, 3


def main() -> None:
    """Status 0 when the challenger is served, 3 when the champion stays, 2 after an error."""
    arguments = _parser().parse_intermixed_args()
    configure_logging()

    def interrupted() -> str:
        again = shlex.join(["python", "-m", "recsys.refresh", *sys.argv[1:]])
        served = arguments.bundle.resolve().name
        return f"interrupted: served is {served}, no challenger is kept; try again by: {again}"

    with interruptible(interrupted):
        sys.exit(_status_of(arguments))


def _status_of(arguments: argparse.Namespace) -> int:
    """Of the process, after one turn."""
    # Imported here, since it loads PyTorch.
    from recsys.events.database import sqlite_url
    from recsys.events.types import StoreUnavailableError
    from recsys.refresh.cycle import Plan, refresh
    from recsys.store_reader import own_store

    try:
        if not 0 < arguments.share < 1:
            raise InputError("--share between 0 and 1", f"{arguments.share:g}", "correct it")
        plan = Plan(
            arguments.bundle,
            arguments.store or str(sqlite_url(own_store(arguments.bundle))),
            arguments.share,
            Limits(margin=arguments.margin, min_users=arguments.min_users),
            arguments.overrides,
            arguments.server,
            os.environ.get(KEY_VARIABLE),
            arguments.keep,
            arguments.hours,
        )
        verdict = refresh(plan)
    except (InputError, StoreUnavailableError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return _USAGE_ERROR
    return 0 if verdict.promoted else _KEPT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recsys.refresh",
        description="Train a challenger on the served model's log and all that has come since, "
        "compare both on the newest events, which neither has learned from, and serve the new one "
        "only if it is not worse. Status 0: it is served; 3: the champion stays; 2: an error.",
        epilog="Each turn adds a line to refresh.jsonl beside the bundle. A nightly turn: "
        "0 3 * * * cd /srv/recsys && .venv/bin/python -m recsys.refresh --server "
        "http://127.0.0.1:8000",
    )
    add = parser.add_argument
    add("--bundle", type=Path, default=Path("checkpoints/latest"), help="the link that is served")
    add("--store", metavar="URL", help="of the event store (default: SQLite beside the bundle)")
    add(
        "--share",
        type=float,
        default=0.5,
        help="of the new events, the newest ones, to compare on (default 0.5); what is served "
        "learns from all of them in the end",
    )
    limits = Limits()
    add(
        "--margin",
        type=float,
        default=limits.margin,
        help=f"share of a metric that it may lack in the mean (default {limits.margin:g})",
    )
    add(
        "--min-users",
        type=int,
        default=limits.min_users,
        help=f"with new events, to tell anything (default {limits.min_users})",
    )
    add(
        "--server",
        metavar="URL",
        help=f"that is told to serve the new one; its key in the variable {KEY_VARIABLE}",
    )
    add("--keep", type=int, default=2, help="bundles of former turns that stay (default 2)")
    add("--hours", type=float, default=24.0, help="that training may take (default 24)")
    add("overrides", nargs="*", help="of configs/train.yaml, such as experiment=quick")
    return parser


if __name__ == "__main__":
    main()
