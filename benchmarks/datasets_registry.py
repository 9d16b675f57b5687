"""The public data sets that the benchmark of data sets knows, and how the product reads each."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recsys.cli import as_override

METRICS = ("recall@10", "ndcg@10", "recall@100", "ndcg@100")
GIVEN = "given"
"""The protocol of a set that comes with test rows of its own."""
MOVIELENS = "ml-100k.zip"


@dataclass(frozen=True)
class PublicSet:
    """A data set as files in a folder of its own, and what it can be asked.

    interactions, items, test: files in the folder; without ``items`` the product takes the items
    of the interactions. columns: group -> our name -> the file's, None where it is not to be read.
    protocols: splits that mean something here, the first the set's main one. texts, times: what
    there is of them, for the reader. metrics: what is reported.
    """

    note: str
    protocols: Sequence[str]
    interactions: str = "events.csv.gz"
    items: str | None = "items.csv.gz"
    test: str | None = None
    columns: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    texts: str = "none"
    times: str = "none"
    metrics: Sequence[str] = METRICS

    def missing(self, folder: Path) -> list[str]:
        """The files that are not there."""
        wanted = (self.interactions, self.items, self.test)
        return [name for name in wanted if name and not (folder / name).is_file()]

    def overrides(self, folder: Path) -> list[str]:
        """What tells the product to read the files in ``folder``."""
        found = [
            "data=files",
            f"data.name={folder.name}",
            path_override("data.interactions", folder / self.interactions),
            path_override("data.items", folder / self.items) if self.items else "data.items=null",
        ]
        for group, names in self.columns.items():
            for ours, theirs in names.items():
                found.append(f"data.columns.{group}.{ours}={'null' if theirs is None else theirs}")
        return found


@dataclass(frozen=True)
class MovieLens(PublicSet):
    """MovieLens-100K as its archive, which lies beside the folder of sets or is named elsewhere."""

    def missing(self, folder: Path) -> list[str]:
        return [] if _archive(folder) else [MOVIELENS]

    def overrides(self, folder: Path) -> list[str]:
        archive = _archive(folder)
        assert archive is not None
        return ["data=ml100k", "data.download=false", path_override("data.archive", archive)]


SETS: Mapping[str, PublicSet] = {
    "steam": PublicSet(
        "Games that people play (hours as ratings)", ["random"], texts="titles, which are the ids"
    ),
    "office": PublicSet(
        "Amazon Office Products, the last ten items of users",
        ["leave_last"],
        texts="titles, long descriptions; brands as genres",
        times="order alone",
    ),
    "retail": PublicSet(
        "Online Retail, 20,000 lines of invoices",
        ["leave_last", "global_time"],
        interactions="online_retail.csv.gz",
        items="online_retail.csv.gz",
        columns={
            "interactions": {
                "user_id": "CustomerID",
                "item_id": "StockCode",
                "timestamp": "InvoiceDate",
            },
            "items": {"item_id": "StockCode", "title": "Description"},
        },
        texts="names of products",
        times="seconds",
    ),
    "citeulike": PublicSet(
        "Papers in people's libraries",
        ["random"],
        columns={"items": {"title": "description", "description": None}},
        texts="tags",
    ),
    "video": PublicSet("Amazon Video Games", ["leave_last"], items=None, times="order alone"),
    "ml1m": PublicSet("MovieLens-1M as pairs", ["random"], texts="titles, genres"),
    "gowalla": PublicSet(
        "Check-ins, in the split of LightGCN's authors",
        [GIVEN],
        interactions="train.csv.gz",
        items=None,
        test="test.csv.gz",
        metrics=(*METRICS, "recall@20", "ndcg@20"),
    ),
    "ml-100k": MovieLens(
        "MovieLens-100K", ["ua", "global_time"], texts="titles, genres", times="seconds"
    ),
}
"""Smallest first, as far as training goes."""


def path_override(key: str, path: Path) -> str:
    """``key=path``, quoted as Hydra needs it, for an argument that no shell will read."""
    return shlex.split(as_override(key, str(path)))[0]


def split_overrides(protocol: str, seed: int) -> list[str]:
    """The overrides of a protocol; test rows given apart need a split of the others to be named."""
    split = "random" if protocol == GIVEN else protocol
    return [f"data.split={split}", f"data.split_seed={seed}", f"seed={seed}"]


def _archive(folder: Path) -> Path | None:
    """As the environment names it, or in the folder of sets, or beside that."""
    named = os.environ.get("MOVIELENS_ARCHIVE")
    places = [Path(named)] if named else []
    places += [folder.parent / MOVIELENS, folder.parent.parent / MOVIELENS]
    return next((place for place in places if place.exists()), None)
