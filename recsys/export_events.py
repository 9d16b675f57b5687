"""Training data out of a bundle and the events and items that have come in since."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from recsys.artifact import Artifact, load_artifact
from recsys.errors import InputError
from recsys.events.frames import catalogue_of
from recsys.events.store import SECONDS_OF_A_COMMAND, EventStore
from recsys.events.types import Event, PairState, Position, StoredItem
from recsys.export_tables import (
    dismissed_rows,
    item_rows,
    later_rows,
    latest_states,
    log_rows,
    with_dismissed,
    with_strengths,
    with_types_of_all,
)
from recsys.overrides import mapping
from recsys.schema import (
    ITEM_ID,
    TIMESTAMP,
    TYPE,
    USER_ID,
    ExternalId,
)

INTERACTIONS_FILE, ITEMS_FILE, USERS_FILE = "interactions.parquet", "items.parquet", "users.parquet"


@dataclass(frozen=True)
class Exported:
    """What was written.

    files: by their names in ``configs/data/files.yaml``. name: of the data set. num_unknown: pairs
    of user and item that were left out, since their items are unknown. settings: of
    ``data``, as on a command line, by which a training counts them as the last one did.
    """

    files: Mapping[str, Path]
    name: str
    num_interactions: int
    num_items: int
    num_unknown: int
    settings: Mapping[str, str] = field(default_factory=dict)


def export(url: str, bundle: Path, folder: Path) -> Exported:
    """Write tables of interactions, items and, where attributes are known, users: ``data=files``.

    The training log and all stored events; of a (user, item) pair the latest, with the latest
    rating, unless that is a dismissal. It has the type of the pair's strongest event and, where one
    is not 1, a weight, by which it counts what all the pair's events do; and where that type does
    not tell all, the types of all of them. A pair that was dismissed last has a row of that type.
    The catalogue, and all stored items, which win. Users whose data was deleted, even while this
    runs, have neither events from before that nor attributes.

    Raises:
        InputError: when the store or the bundle cannot be read, or the folder not be written.
        StoreUnavailableError: when the database fails on the way.
    """
    artifact = load_artifact(bundle)
    pairs, events, forgotten, stored = asyncio.run(_read(url, artifact))
    items = item_rows(artifact, stored)
    log, later = log_rows(artifact), later_rows(pairs)
    known = later[ITEM_ID].isin(items[ITEM_ID]).to_numpy(bool)
    log = log[~log[USER_ID].isin(forgotten)]
    dismissed = dismissed_rows(artifact)
    dismissed = dismissed[~dismissed[USER_ID].isin(forgotten)]
    told = [rows for rows in (log, dismissed, later[known]) if len(rows)]
    interactions, gone = latest_states(pd.concat(told) if told else log)
    interactions = with_strengths(interactions, log, events, artifact)
    interactions = with_types_of_all(interactions, log, later, url)
    users = artifact.user_frame[~artifact.user_frame[USER_ID].isin(forgotten)]
    rows = with_dismissed(interactions, gone)
    tables = {"interactions": (INTERACTIONS_FILE, rows), "items": (ITEMS_FILE, items)}
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
    name = str(artifact.manifest.get("dataset", "files"))
    num_unknown = int((~known).sum())
    return Exported(files, name, len(interactions), len(items), num_unknown, _settings(artifact))


def _settings(artifact: Artifact) -> dict[str, str]:
    found = {}
    if artifact.event_weights is not None:
        weights = {name: repr(weight) for name, weight in artifact.event_weights.items()}
        found["event_weights"] = mapping(weights)
    if artifact.count_repeats:
        found["count_repeats"] = "true"
    if artifact.half_life_days is not None:
        found["half_life_days"] = repr(artifact.half_life_days)
    return found


async def adopt(url: str, bundle: Path) -> None:
    """Tell a store that a bundle is of its data set.

    Raises:
        InputError: when the store or the bundle cannot be read.
        StoreUnavailableError: when the database fails.
    """
    catalogue = catalogue_of(load_artifact(bundle).item_frame)
    store = await EventStore.open(url, timeout_seconds=SECONDS_OF_A_COMMAND)
    try:
        await store.adopt(catalogue)
    finally:
        await store.close()


async def _read(
    url: str, artifact: Artifact
) -> tuple[list[PairState], pd.DataFrame, set[ExternalId], list[StoredItem]]:
    """States, events, users of the log whose data was deleted, items."""
    store = await EventStore.open(url, timeout_seconds=SECONDS_OF_A_COMMAND)
    try:
        store.check_id_types(artifact.users.holds_integers, artifact.items.holds_integers)
        await store.check_catalogue(catalogue_of(artifact.item_frame))
        start = await store.head()
        events = await _events(store)
        pairs = [pair async for page in store.pairs() for pair in page]
        forgotten, items = set(await store.forgotten_users()), await store.items()
        # All that was read of a user who has been deleted meanwhile was from before that.
        deleted = await _forgotten_since(store, start)
        told = [pair for pair in pairs if store.tombstone(pair.user_id) not in deleted]
        forgotten |= deleted
        users = artifact.users.ids.tolist() if forgotten else []
        of_log = {user for user in users if store.tombstone(user) in forgotten}
        return told, events, of_log, items
    finally:
        await store.close()


async def _events(store: EventStore) -> pd.DataFrame:
    """All that tell a taste: ``user_id, item_id, timestamp, type``."""
    pages = [
        _event_frame([one for one in page if one.type != "dismiss"])
        async for page in store.events()
    ]
    filled = [page for page in pages if len(page)]
    return pd.concat(filled, ignore_index=True) if filled else _event_frame([])


def _event_frame(events: Sequence[Event]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            USER_ID: [one.user_id for one in events],
            ITEM_ID: [one.item_id for one in events],
            TIMESTAMP: np.array([one.timestamp for one in events], np.int64),
            TYPE: pd.array([one.type for one in events], "str"),
        }
    )


async def _forgotten_since(store: EventStore, position: Position) -> set[str]:
    """Tombstones."""
    forgotten: set[str] = set()
    more = True
    while more:
        changes = await store.changes(position)
        position, more = changes.position, changes.more
        forgotten.update(changes.forgotten)
    return forgotten
