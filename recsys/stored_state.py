"""What an event store holds, in the form in which recommenders take it."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.data.catalog import item_text
from recsys.events.frames import item_frame
from recsys.events.strengths import strengths_of
from recsys.events.types import Event, Item, StoredItem, UserState, rating_of, type_set
from recsys.recommender import Recommender
from recsys.request import NO_EVENTS, UserEvents
from recsys.text.from_config import fingerprint_of

log = logging.getLogger(__name__)

_COUNT_BITS, _VERSION_BITS = 32, 64

EncodeTexts = Callable[[Mapping[str, Any], Sequence[str]], NDArray[np.float32]]
"""(a bundle's manifest, texts) -> vectors float32 [n, T] as the bundle's; see
``TextUnavailableError``."""


class TextUnavailableError(Exception):
    """Texts cannot be turned into vectors that fit the served model."""


def as_events(state: UserState | None, store_number: int = 0) -> UserEvents:
    """What a recommender is told of a user's stored state.

    Args:
        store_number: makes versions differ from those of former stores.
    """
    if state is None or not state.version:
        return NO_EVENTS
    told = [row for row, dismissed in enumerate(state.dismissed) if not dismissed]
    gone = [row for row, dismissed in enumerate(state.dismissed) if dismissed]
    # Retention deletes a part at a time.
    number = len(state.item_ids) + len(state.older) + len(state.older_dismissed)
    return UserEvents(
        version=(((store_number << _VERSION_BITS) + state.version) << _COUNT_BITS) + number,
        item_ids=[state.item_ids[row] for row in told],
        timestamps=[state.timestamps[row] for row in told],
        ratings=[state.ratings[row] for row in told],
        types=[state.types[row] for row in told],
        older=state.older,
        older_types=state.older_types,
        dismissed=[*state.older_dismissed, *(state.item_ids[row] for row in gone)],
        dismissed_at=[*state.older_dismissed_at, *(state.timestamps[row] for row in gone)],
        forgets_log=state.forgotten_at is not None,
    )


def text_of(item: Item) -> str:
    """What the text encoder reads of an item: as in training."""
    year = item.year
    if year is None and item.release_date:
        year = int(item.release_date[:4])
    return item_text(item.title, year, item.genres, item.description)


def as_bytes(vector: NDArray[np.float32]) -> bytes:
    """A text vector as it is stored."""
    return vector.astype(np.float32).tobytes()


def with_stored(
    recommender: Recommender, items: Sequence[StoredItem], encode: EncodeTexts
) -> Recommender:
    """The recommender with these items, later ones of the same id in the place of former ones.

    Vectors of another text model are made anew; where that cannot be done, the items are left out,
    and the log says so.
    """
    if not items:
        return recommender
    latest = {item.item_id: item for item in items}
    expected = fingerprint_of(recommender.manifest)
    fitting = [item for item in latest.values() if item.text_fingerprint == expected]
    others = [item for item in latest.values() if item.text_fingerprint != expected]
    vectors = [np.frombuffer(item.text_vector or b"", np.float32) for item in fitting]
    if others:
        try:
            encoded = encode(recommender.manifest, [text_of(item) for item in others])
            fitting, vectors = [*fitting, *others], [*vectors, *encoded]
        except TextUnavailableError as error:
            log.error("%d items of the store are left out: %s", len(others), error)
    extended = copy(recommender)
    if fitting:
        extended = recommender.with_items(item_frame(fitting), np.stack(vectors))
    # Also of those left out: there is no use in trying again.
    positions = {item_id: item.position for item_id, item in latest.items()}
    extended.stored_positions = {**recommender.stored_positions, **positions}
    return extended


def count_events(recommender: Recommender, events: Collection[Event]) -> None:
    """Let features of items know of events that have come in; dismissals are none.

    Those that the training log has are counted already. In popularity an event counts as its type
    does in training; 1 where training knew no such type.
    """
    told = [event for event in events if event.type != "dismiss"]
    features = recommender.features
    item_idx = recommender.items.encode(event.item_id for event in told)
    user_idx = recommender.users.encode(event.user_id for event in told)
    times = np.array([event.timestamp for event in told], np.int64)
    ratings = [rating_of(event.type, event.value) for event in told]
    values = np.array(ratings, np.float64)  # None becomes NaN
    is_new = recommender.histories.are_since(user_idx, item_idx, times)
    kept = (item_idx > 0) & is_new
    types = [type_set([event.type]) for event in told]
    weights = strengths_of(types, recommender.artifact.event_weights)
    features.add(item_idx[kept], times[kept], values[kept], weights[kept])
