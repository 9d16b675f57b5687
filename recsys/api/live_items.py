"""Items of the event store in the form in which recommenders take them."""

import logging
from collections.abc import Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from recsys.api.texts import Texts, TextUnavailableError
from recsys.data.catalog import item_text
from recsys.events.frames import item_frame
from recsys.events.types import Item, StoredItem
from recsys.recommender import Recommender
from recsys.text.from_config import fingerprint_of

log = logging.getLogger(__name__)


def text_of(item: Item) -> str:
    """What the text encoder reads of an item: as in training."""
    year = item.year
    if year is None and item.release_date:
        year = int(item.release_date[:4])
    return item_text(item.title, year, item.genres, item.description)


def with_stored(recommender: Recommender, items: Sequence[StoredItem], texts: Texts) -> Recommender:
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
            encoded = texts.encode_now(recommender.manifest, [text_of(item) for item in others])
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


def as_bytes(vector: NDArray[np.float32]) -> bytes:
    """A text vector as it is stored."""
    return vector.astype(np.float32).tobytes()
