"""Training data out of a bundle and the events and items that have come in since."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recsys.artifact import Artifact, load_artifact
from recsys.errors import InputError
from recsys.events.frames import item_frame
from recsys.events.store import EventStore
from recsys.events.types import Event, Position, StoredItem, rating_of
from recsys.schema import (
    DESCRIPTION,
    GENRES,
    ITEM_ID,
    RATING,
    RELEASE_DATE,
    TIMESTAMP,
    TITLE,
    USER_ID,
    YEAR,
    ExternalId,
)

INTERACTIONS_FILE, ITEMS_FILE, USERS_FILE = "interactions.parquet", "items.parquet", "users.parquet"


@dataclass(frozen=True)
class Exported:
    """What was written.

    files: by their names in ``configs/data/files.yaml``. num_unknown: events that were left out,
    since their items are unknown.
    """

    files: Mapping[str, Path]
    num_interactions: int
    num_items: int
    num_unknown: int


def export(url: str, bundle: Path, folder: Path) -> Exported:
    """Write tables of interactions, items and, where attributes are known, users: ``data=files``.

    The training log and all stored events but dismissals; of a (user, item) pair the latest, with
    the latest rating. The catalogue, and all stored items, which win. Users whose data was deleted,
    even while this runs, have neither events from before that nor attributes.

    Raises:
        InputError: when the store or the bundle cannot be read, or the folder not be written.
        StoreUnavailableError: when the database fails on the way.
    """
    artifact = load_artifact(bundle)
    events, forgotten, stored = asyncio.run(_read(url, artifact))
    items = _items(artifact, stored)
    log, later = _log(artifact), _later(events)
    known = later[ITEM_ID].isin(items[ITEM_ID]).to_numpy(bool)
    log = log[~log[USER_ID].isin(list(forgotten))]
    interactions = _latest(pd.concat([log, later[known]] if known.any() else [log]))
    users = artifact.user_frame[~artifact.user_frame[USER_ID].isin(list(forgotten))]
    tables = {"interactions": (INTERACTIONS_FILE, interactions), "items": (ITEMS_FILE, items)}
    if len(users.columns) > 1:
        tables["users"] = (USERS_FILE, users)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, table in tables.values():
            table.to_parquet(folder / file, index=False)
    except OSError as error:
        found = (error.strerror or str(error)).lower()
        raise InputError(f"a folder to write in at {folder}", found, "give another one") from error
    files = {name: folder / file for name, (file, _) in tables.items()}
    return Exported(files, len(interactions), len(items), int((~known).sum()))


async def _read(
    url: str, artifact: Artifact
) -> tuple[list[Event], set[ExternalId], list[StoredItem]]:
    store = await EventStore.open(url)
    try:
        for kind, held, vocabulary in (
            ("user", store.holds_integer_users, artifact.users),
            ("item", store.holds_integer_items, artifact.items),
        ):
            if held != vocabulary.holds_integers:
                raise InputError(
                    f"a store with the bundle's type of {kind} ids", "another", "give its bundle"
                )
        start = await store.head()
        events = [event async for page in store.events(until=start) for event in page]
        forgotten, items = set(await store.forgotten_users()), await store.items()
        # All that was read of a user who has been deleted meanwhile was from before that.
        deleted = await _forgotten_since(store, start)
        told = [one for one in events if one.type != "dismiss" and one.user_id not in deleted]
        return told, forgotten | deleted, items
    finally:
        await store.close()


async def _forgotten_since(store: EventStore, position: Position) -> set[ExternalId]:
    forgotten: set[ExternalId] = set()
    more = True
    while more:
        changes = await store.changes(position)
        position, more = changes.position, changes.more
        forgotten.update(changes.forgotten)
    return forgotten


def _log(artifact: Artifact) -> pd.DataFrame:
    log = artifact.histories
    return pd.DataFrame(
        {
            USER_ID: artifact.users.decode(log.user_idx),
            ITEM_ID: artifact.items.decode(log.item_idx),
            TIMESTAMP: log.timestamps,
            RATING: log.ratings,
        }
    )


def _later(events: Sequence[Event]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            USER_ID: [event.user_id for event in events],
            ITEM_ID: [event.item_id for event in events],
            TIMESTAMP: np.array([event.timestamp for event in events], np.int64),
            RATING: np.array([rating_of(event.type, event.value) for event in events], np.float64),
        }
    )


def _latest(interactions: pd.DataFrame) -> pd.DataFrame:
    """Of each pair of user and item the last row, with the last rating that there is."""
    pair = [USER_ID, ITEM_ID]
    # Stable: among equal times, what came in last.
    in_time = interactions.sort_values(TIMESTAMP, kind="stable", ignore_index=True)
    rating = in_time.groupby(pair, sort=False)[RATING].transform("last")  # passes over NaN
    return in_time.assign(**{RATING: rating}).drop_duplicates(pair, keep="last")


def _items(artifact: Artifact, stored: list[StoredItem]) -> pd.DataFrame:
    columns = [ITEM_ID, TITLE, DESCRIPTION, GENRES, YEAR, RELEASE_DATE]
    base = artifact.item_frame[[name for name in columns if name in artifact.item_frame]]
    if not stored:
        return base
    new = item_frame(stored)
    kept = base[~base[ITEM_ID].isin(new[ITEM_ID])]
    return pd.concat([kept, new], ignore_index=True)
