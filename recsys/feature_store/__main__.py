"""``python -m recsys.feature_store``: features for training data, and what they mean."""

import argparse
import sys
from pathlib import Path

from recsys.data.files import load
from recsys.errors import InputError
from recsys.feature_store.definitions import ITEM_FEATURES, USER_FEATURES
from recsys.feature_store.offline import offline_features
from recsys.schema import TIMESTAMP

_USAGE_ERROR = 2


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.feature_store", description="Features of users and items."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="print the definitions")
    listing.set_defaults(run=lambda _: print(listed()))
    offline = commands.add_parser(
        "offline",
        help="compute features as of each interaction",
        description="Write a row per interaction, with what was known of its user and its item "
        "right before it, and their attributes.",
    )
    offline.add_argument("--interactions", type=Path, required=True, help="CSV or Parquet")
    offline.add_argument("--items", type=Path, required=True, help="CSV or Parquet")
    offline.add_argument("--users", type=Path, help="CSV or Parquet")
    offline.add_argument("--output", type=Path, required=True, help="a Parquet file to write")
    offline.set_defaults(run=_write)
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except InputError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(_USAGE_ERROR)


def listed() -> str:
    """The features as a table in Markdown."""
    lines = ["| feature | unit | |", "|---|---|---|"]
    for kind, features in (("user", USER_FEATURES), ("item", ITEM_FEATURES)):
        lines += [f"| `{kind}_{one.name}` | {one.unit} | {one.description} |" for one in features]
    return "\n".join(lines)


def _write(arguments: argparse.Namespace) -> None:
    dataset = load(arguments.interactions, arguments.items, arguments.users)
    if TIMESTAMP not in dataset.interactions:
        raise InputError(
            f"a column {TIMESTAMP} in {arguments.interactions}", "none", "features are as of a time"
        )
    found = offline_features(
        dataset.interactions, dataset.interactions, dataset.users, dataset.items
    )
    try:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        found.to_parquet(arguments.output, index=False)
    except OSError as error:
        raise InputError(
            f"a file that can be written at {arguments.output}",
            (error.strerror or str(error)).lower(),
            "give another --output",
        ) from error
    print(f"{len(found):,} rows with {len(found.columns)} columns in {arguments.output}")


if __name__ == "__main__":
    main()
