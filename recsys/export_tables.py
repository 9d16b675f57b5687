"""The tables of an export: what the log, the stored events and the catalogue become."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.artifact import Artifact
from recsys.data.continued_log import continued
from recsys.data.histories import end_of_log
from recsys.data.latest import latest_rows
from recsys.data.strengths import faded
from recsys.data.type_sets import as_text, to_names, with_all_types
from recsys.events.frames import item_frame
from recsys.events.types import PairState, StoredItem, type_names
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
)
from recsys.text.none import NAME as NO_TEXT

_DISMISSED = "dismissed"


def log_rows(artifact: Artifact) -> pd.DataFrame:
    """The training events, a row per pair: ``user_id, item_id, timestamp, rating, type, all_types,
    weight, dismissed``.
    """
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


def later_rows(pairs: Sequence[PairState]) -> pd.DataFrame:
    """The stored states of pairs: ``user_id, item_id, timestamp, rating, all_types, dismissed``."""
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


def dismissed_rows(artifact: Artifact) -> pd.DataFrame:
    """What training data has dismissed: ``user_id, item_id, timestamp, rating, dismissed``."""
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


def latest_states(interactions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of each pair of user and item the last row, with the last rating that there is; those that
    were dismissed last apart. Both as ``user_id, item_id, timestamp, rating``.
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


def with_strengths(
    interactions: pd.DataFrame, log: pd.DataFrame, events: pd.DataFrame, artifact: Artifact
) -> pd.DataFrame:
    """With types where any is known, and with weights where one is not 1.

    Args:
        log: as of ``log_rows``. events: of the store, ``user_id, item_id, timestamp, type``.
    """
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


def with_types_of_all(
    interactions: pd.DataFrame, log: pd.DataFrame, later: pd.DataFrame, origin: str
) -> pd.DataFrame:
    """With the types of all events of each pair, where its ``type`` does not tell them.

    Args:
        log, later: as of ``log_rows`` and ``later_rows``. origin: of these, for error messages.
    """
    told = interactions if TYPE in interactions else interactions.assign(**{TYPE: ""})
    columns = [USER_ID, ITEM_ID, ALL_TYPES]
    rows = pd.concat([told.assign(**{ALL_TYPES: ""}), log[columns], later[columns]])
    rows = rows.fillna({TYPE: ""}).reset_index(drop=True)
    found = with_all_types(rows, origin).iloc[: len(told)]
    texts = {name: as_text([name] if name else []) for name in told[TYPE].unique()}
    if ALL_TYPES not in found or (found[ALL_TYPES] == told[TYPE].map(texts)).all():
        return interactions
    return told.assign(**{ALL_TYPES: found[ALL_TYPES]})


def with_dismissed(interactions: pd.DataFrame, gone: pd.DataFrame) -> pd.DataFrame:
    """With a row for each pair that was dismissed last, as of ``latest_states``."""
    if not len(gone):
        return interactions
    rows = gone.drop(columns=RATING).assign(**{TYPE: DISMISS})
    found = pd.concat([interactions, rows], ignore_index=True)
    blank = {TYPE: "", ALL_TYPES: "", WEIGHT: 1.0}
    return found.fillna({name: value for name, value in blank.items() if name in found})


def item_rows(artifact: Artifact, stored: list[StoredItem]) -> pd.DataFrame:
    """The catalogue and all stored items, which win."""
    columns = [ITEM_ID, TITLE, DESCRIPTION, GENRES, YEAR, RELEASE_DATE]
    base = artifact.item_frame[[name for name in columns if name in artifact.item_frame]]
    if artifact.manifest.get("text", {}).get("name") == NO_TEXT:
        # Ids stand for titles; another training shall not take them for texts.
        stands_for = base[TITLE] == base[ITEM_ID].astype("str")
        base = base.assign(**{TITLE: base[TITLE].mask(stands_for, "")})
    if not stored:
        return base
    new = item_frame(stored)
    kept = base[~base[ITEM_ID].isin(new[ITEM_ID])]
    return pd.concat([kept, new], ignore_index=True)
