"""Whether what is served has learned every row, shows nobody what they have, and exports its log.

    python benchmarks/served_rows.py --sets ../shared/data/sets
    python benchmarks/served_rows.py --only retail,office --quick

Of each public data set, by the commands that a user runs: train.py with the set's main split,
recsys.batch for all users, serve.py for some of them, recsys.events export, train.py on what was
exported, and export again. Ends with an error where a row is missing from the served histories, a
list holds what its user has, or the second export differs from the first. Nothing is downloaded: a
set whose files are not there is passed over, and said so.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from hydra import compose, initialize_config_dir
from rich.table import Table

from benchmarks.datasets_registry import SETS, split_overrides
from benchmarks.harness import PACKAGES, plain_table, present
from benchmarks.runs import ROOT, machine
from benchmarks.servers import serving
from recsys.artifact import Artifact, load_artifact
from recsys.cli import CONFIG_DIR
from recsys.errors import InputError
from recsys.overrides import HYDRA_VERSION
from recsys.schema import ITEM_ID, USER_ID
from recsys.training.composed_config import load_dataset

TITLE = "Rows and what is served"
USERS_ASKED, TOP_K = 200, 50
PAIR = [USER_ID, ITEM_ID]
QUICK = ("experiment=quick",)
COLUMNS = {
    "users": "users",
    "rows": "rows",
    "served": "of them in the served histories",
    "batch": "places of lists of all users that hold them",
    "http": f"... of {USERS_ASKED} users by HTTP",
    "exported": "alike in two exports",
}


def main() -> None:
    """Check each set, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--sets", type=Path, default=ROOT.parent / "shared/data/sets")
    parser.add_argument("--only", default=",".join(SETS), metavar="SET,SET")
    parser.add_argument("--quick", action="store_true", help="train for seconds, not for quality")
    parser.add_argument("--output", type=Path, help="write the figures here, the table to .md")
    arguments = parser.parse_args()
    extra = QUICK if arguments.quick else ()
    found: dict[str, dict[str, int]] = {}
    try:
        for name in arguments.only.split(","):
            folder = arguments.sets.resolve() / name
            if name not in SETS:
                raise InputError(f"--only of {', '.join(SETS)}", name, "correct it")
            if missing := SETS[name].missing(folder):
                print(f"{name} is passed over: {', '.join(missing)} not in {folder}")
                continue
            found[name] = check(name, folder, extra)
            print(f"{name}: {'right' if is_right(found[name]) else 'WRONG'} {found[name]}")
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    content = {
        "machine": machine(PACKAGES),
        "protocol": f"`train.py`, refitted on all rows; lists of {TOP_K} by `recsys.batch` and "
        "`serve.py`; exported, trained on that, and exported again.",
        "overrides": list(extra),
        "sets": found,
    }
    present(TITLE, [table(found)], content, arguments.output)
    if wrong := [name for name, figures in found.items() if not is_right(figures)]:
        sys.exit(f"error: expected every row to be served, and none shown; found others: {wrong}")


def check(name: str, folder: Path, extra: Sequence[str]) -> dict[str, int]:
    """The figures of a set.

    Raises:
        InputError: when a command fails.
    """
    public = SETS[name]
    data = [*public.overrides(folder), *extra, "refit=true"]
    split = split_overrides(public.protocols[0], 0)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        bundle = trained(root / "first", [*data, *split])
        own = rows_of_files([*data, *split])
        found = {"rows": len(own), "served": common(own, rows_of_log(load_artifact(bundle)))}
        store = f"sqlite+aiosqlite:///{root}/events.db"
        for way, lists in (
            ("http", served_lists(bundle, store, own)),
            ("batch", batch_lists(bundle, root / "lists.parquet")),
        ):
            found[way] = common(lists, own)
            found[f"{way}_lists"] = lists[USER_ID].nunique()
        found["users"] = own[USER_ID].nunique()
        files = exported(bundle, store, root / "once")
        again = trained(root / "second", [*files, *extra, *split, "refit=true"])
        exported(again, store, root / "twice")
        once, twice = (interactions(root / part) for part in ("once", "twice"))
        found["exported"] = len(own) if len(once) == len(own) and once.equals(twice) else 0
        return found


def is_right(figures: Mapping[str, int]) -> bool:
    """Whether all rows are served and exported, and nothing is shown that its user has."""
    is_whole = figures["rows"] == figures["served"] == figures["exported"]
    asked = min(figures["users"], USERS_ASKED)
    # Of a user who has all there is, a list may be empty.
    are_lists = figures["http_lists"] >= 0.99 * asked
    are_lists = are_lists and figures["batch_lists"] >= 0.99 * figures["users"]
    return is_whole and are_lists and not figures["batch"] and not figures["http"]


def table(sets: Mapping[str, Mapping[str, int]]) -> Table:
    """A row per set."""
    shown = plain_table("by data set", "")
    shown.add_column("set")
    for title in COLUMNS.values():
        shown.add_column(title, justify="right")
    for name, figures in sets.items():
        shown.add_row(name, *(f"{figures[key]:,}" for key in COLUMNS))
    return shown


def rows_of_files(overrides: Sequence[str]) -> pd.DataFrame:
    """All pairs of the files, as they are cleaned for training."""
    with initialize_config_dir(str(CONFIG_DIR), version_base=HYDRA_VERSION):
        cfg = compose("train", list(overrides))
    return load_dataset(cfg).interactions[PAIR].drop_duplicates()


def rows_of_log(artifact: Artifact) -> pd.DataFrame:
    """All pairs of the histories that a bundle serves from."""
    log = artifact.histories
    users, items = artifact.users.decode(log.user_idx), artifact.items.decode(log.item_idx)
    return pd.DataFrame({USER_ID: users, ITEM_ID: items})


def common(left: pd.DataFrame, right: pd.DataFrame) -> int:
    """How many rows of the one have their pair in the other."""
    return len(left[PAIR].astype("str").merge(right[PAIR].astype("str"), on=PAIR))


def trained(root: Path, overrides: Sequence[str]) -> Path:
    """The bundle of a run of train.py below a folder."""
    run("train.py", *overrides, f"output_dir={root}", "logger=none")
    return (root / "latest").resolve()


def batch_lists(bundle: Path, output: Path) -> pd.DataFrame:
    """Lists of all users by recsys.batch."""
    run("-m", "recsys.batch", f"bundle={bundle}", f"top_k={TOP_K}", f"output={output}")
    return pd.read_parquet(output)


def served_lists(bundle: Path, store: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Lists of some users by HTTP."""
    users = rows[USER_ID].drop_duplicates().sample(frac=1.0, random_state=0)[:USERS_ASKED]
    options = [f"bundle={bundle}", f'store.url="{store}"', "port={port}", "log_level=warning"]
    lists = []
    with serving(["serve.py", *options], "/health/ready") as server:
        for user in users.tolist():
            url = f"{server.url}/recommend?user_id={quote(str(user), safe='')}&top_k={TOP_K}"
            with urllib.request.urlopen(url, timeout=60) as response:
                items = json.load(response)["top_items"]
            lists.append(pd.DataFrame({USER_ID: user, ITEM_ID: items}))
    return pd.concat(lists, ignore_index=True)


def exported(bundle: Path, store: str, folder: Path) -> list[str]:
    """What train.py is to be told of the files that an export has written."""
    arguments = ("export", "--store", store, "--bundle", str(bundle), "--output", str(folder))
    told = run("-m", "recsys.events", *arguments)
    (line,) = (one for one in told.splitlines() if one.startswith("Train on them:"))
    words = shlex.split(line.partition("train.py ")[2])
    return [word for word in words if not word.startswith("stage=")]


def interactions(folder: Path) -> pd.DataFrame:
    """The rows of an export, in an order of their own."""
    rows = pd.read_parquet(folder / "interactions.parquet")
    return rows.sort_values(PAIR, ignore_index=True)[sorted(map(str, rows))]


def run(*command: str) -> str:
    """The output of a Python command.

    Raises:
        InputError: when it fails, with its last line.
    """
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise InputError(f"{' '.join(command[:2])} to end well", " ".join(told), "see above")
    return done.stdout


if __name__ == "__main__":
    main()
