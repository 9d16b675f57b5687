"""Training data out of a bundle and the events and items that have come in since."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.artifact import Artifact, load_artifact
from recsys.data.continued_log import continued
from recsys.data.histories import end_of_log
from recsys.data.latest import latest_rows
from recsys.data.strengths import faded
from recsys.data.type_sets import as_text, to_names, with_all_types
from recsys.errors import InputError
from recsys.events.frames import catalogue_of, item_frame
from recsys.events.store import EventStore
from recsys.events.types import Event, PairState, Position, StoredItem, type_names
from recsys.overrides import mapping
from recsys.schema import (
    ALL_TYPES,
    DESCRIPTION,
    DISMISS,
    GENRES,
    ITEM_ID,
    RATING,
    RELEASE_DATE,
    TIMESTAMP,
    TITLE,
    TYPE,
    USER_ID,
    WEIGHT,
    YEAR,
    ExternalId,
)

INTERACTIONS_FILE, ITEMS_FILE, USERS_FILE = "interactions.parquet", "items.parquet", "users.parquet"

_DISMISSED = "dismissed"


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
    items = _items(artifact, stored)
    log, later = _log(artifact), _later(pairs)
    known = later[ITEM_ID].isin(items[ITEM_ID]).to_numpy(bool)
    log = log[~log[USER_ID].isin(forgotten)]
    dismissed = _dismissed(artifact)
    dismissed = dismissed[~dismissed[USER_ID].isin(forgotten)]
    told = [rows for rows in (log, dismissed, later[known]) if len(rows)]
    interactions, gone = _latest(pd.concat(told) if told else log)
    interactions = _with_strengths(interactions, log, events, artifact)
    interactions = _with_all_types(interactions, log, later, url)
    users = artifact.user_frame[~artifact.user_frame[USER_ID].isin(forgotten)]
    rows = _with_dismissed(interactions, gone)
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
    store = await EventStore.open(url)
    try:
        await store.adopt(catalogue)
    finally:
        await store.close()


async def _read(
    url: str, artifact: Artifact
) -> tuple[list[PairState], pd.DataFrame, set[ExternalId], list[StoredItem]]:
    """States, events, users of the log whose data was deleted, items."""
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


def _log(artifact: Artifact) -> pd.DataFrame:
    log = artifact.histories
    return pd.DataFrame(
        {
            USER_ID: artifact.users.decode(log.user_idx),
            ITEM_ID: artifact.items.decode(log.item_idx),
            TIMESTAMP: log.timestamps,
            RATING: log.ratings,
            TYPE: np.array(["", *artifact.event_types])[log.types],
            ALL_TYPES: to_names(log.type_sets, artifact.event_types),
            WEIGHT: _weights_at_their_time(artifact),
            _DISMISSED: False,
        }
    )


def _weights_at_their_time(artifact: Artifact) -> NDArray[np.float64]:
    """What the log's rows count before they fade to its end."""
    log, half_life = artifact.histories, artifact.half_life_days
    weights = log.weights.astype(np.float64)
    if half_life is None:
        return weights
    return weights / faded(end_of_log(log) - log.timestamps, half_life)


def _later(pairs: Sequence[PairState]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            USER_ID: [pair.user_id for pair in pairs],
            ITEM_ID: [pair.item_id for pair in pairs],
            TIMESTAMP: np.array([pair.timestamp for pair in pairs], np.int64),
            RATING: np.array([pair.rating for pair in pairs], np.float64),
            ALL_TYPES: pd.array([as_text(type_names(pair.types)) for pair in pairs], "str"),
            _DISMISSED: np.array([pair.dismissed for pair in pairs], bool),
        }
    )


def _dismissed(artifact: Artifact) -> pd.DataFrame:
    """What the training data has of it."""
    log = artifact.histories
    events = artifact.dismissed or log.select(np.zeros(len(log), bool))
    return pd.DataFrame(
        {
            USER_ID: artifact.users.decode(events.user_idx),
            ITEM_ID: artifact.items.decode(events.item_idx),
            TIMESTAMP: events.timestamps,
            RATING: events.ratings,
            _DISMISSED: np.ones(len(events), bool),
        }
    )


def _latest(interactions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of each pair of user and item the last row, with the last rating that there is; those that
    were dismissed last apart.
    """
    pair = [USER_ID, ITEM_ID]
    rows = interactions.reset_index(drop=True)
    times = rows[TIMESTAMP].to_numpy(np.int64)
    # Stable: among equal times, what came in last.
    in_time = rows.iloc[np.argsort(times, kind="stable")]
    ratings = in_time.groupby(pair, sort=False)[RATING].transform("last")  # passes over NaN
    keys = rows.groupby(pair, sort=False).ngroup().to_numpy().astype(np.int64)
    last = rows.assign(**{RATING: ratings}).iloc[latest_rows(keys, times)]
    is_gone = last[_DISMISSED].to_numpy(bool)
    last = last[[USER_ID, ITEM_ID, TIMESTAMP, RATING]]
    return last[~is_gone].reset_index(drop=True), last[is_gone].reset_index(drop=True)


def _with_strengths(
    interactions: pd.DataFrame, log: pd.DataFrame, events: pd.DataFrame, artifact: Artifact
) -> pd.DataFrame:
    """With types where any is known, and with weights where one is not 1."""
    end = end_of_log(artifact.histories)
    found = continued(
        log.drop(columns=[_DISMISSED, ALL_TYPES]),
        events,
        end,
        artifact.event_weights,
        count_repeats=artifact.count_repeats,
        half_life_days=artifact.half_life_days,
    )
    pair = [USER_ID, ITEM_ID]
    # Without any event left that made it, a pair counts 1.
    strong = interactions[pair].merge(found, "left", pair, validate="one_to_one")
    columns = {TYPE: strong[TYPE].fillna(""), WEIGHT: strong[WEIGHT].fillna(1.0)}
    told = {TYPE: (columns[TYPE] != "").any(), WEIGHT: (columns[WEIGHT] != 1.0).any()}
    return interactions.assign(
        **{name: columns[name].to_numpy() for name, is_told in told.items() if is_told}
    )


def _with_all_types(
    interactions: pd.DataFrame, log: pd.DataFrame, later: pd.DataFrame, origin: str
) -> pd.DataFrame:
    """With the types of all events of each pair, where its ``type`` does not tell them."""
    told = interactions if TYPE in interactions else interactions.assign(**{TYPE: ""})
    columns = [USER_ID, ITEM_ID, ALL_TYPES]
    rows = pd.concat([told.assign(**{ALL_TYPES: ""}), log[columns], later[columns]])
    rows = rows.fillna({TYPE: ""}).reset_index(drop=True)
    found = with_all_types(rows, origin).iloc[: len(told)]
    texts = {name: as_text([name] if name else []) for name in told[TYPE].unique()}
    if ALL_TYPES not in found or (found[ALL_TYPES] == told[TYPE].map(texts)).all():
        return interactions
    return told.assign(**{ALL_TYPES: found[ALL_TYPES]})


def _with_dismissed(interactions: pd.DataFrame, gone: pd.DataFrame) -> pd.DataFrame:
    """With a row for each pair that was dismissed last."""
    if not len(gone):
        return interactions
    rows = gone.drop(columns=RATING).assign(**{TYPE: DISMISS})
    found = pd.concat([interactions, rows], ignore_index=True)
    blank = {TYPE: "", ALL_TYPES: "", WEIGHT: 1.0}
    return found.fillna({name: value for name, value in blank.items() if name in found})


def _items(artifact: Artifact, stored: list[StoredItem]) -> pd.DataFrame:
    columns = [ITEM_ID, TITLE, DESCRIPTION, GENRES, YEAR, RELEASE_DATE]
    base = artifact.item_frame[[name for name in columns if name in artifact.item_frame]]
    if not stored:
        return base
    new = item_frame(stored)
    kept = base[~base[ITEM_ID].isin(new[ITEM_ID])]
    return pd.concat([kept, new], ignore_index=True)
