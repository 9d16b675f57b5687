"""From validated frames to what training reads: vocabularies, histories, catalogue."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.catalog import Catalog
from recsys.data.dismissals import encoded
from recsys.data.histories import Histories, end_of_log
from recsys.data.splits import check_no_leakage
from recsys.data.strengths import faded
from recsys.data.type_sets import names_in
from recsys.data.user_attributes import UserAttributes
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.schema import ALL_TYPES, ITEM_ID, TYPE, USER_ID, Dataset, Split

log = logging.getLogger(__name__)

_MAX_TYPES = 127
"""As many as int8 holds."""


@dataclass(frozen=True)
class TrainingData:
    """train: histories of the training rows alone. fingerprint: changes when any of them does.
    user_attributes: names of the columns of ``train.context``. user_frame, event_weights: as in
    ``Dataset``. event_types: names of the types of ``train``, see ``Histories.types``.
    count_repeats, half_life_days: as in ``Dataset``; the weights of ``train`` are those at its end.
    dismissed: what users of ``train`` have dismissed, as events; None where there is nothing.

    The item vocabulary holds the whole catalogue, also items without training rows; the user
    vocabulary holds the users with training rows.
    """

    name: str
    split: Split
    users: Vocabulary
    items: Vocabulary
    catalog: Catalog
    train: Histories
    fingerprint: str
    user_attributes: list[str]
    user_frame: pd.DataFrame | None
    event_types: Sequence[str] = ()
    event_weights: Mapping[str, float] | None = None
    count_repeats: bool = False
    half_life_days: float | None = None
    dismissed: Histories | None = None

    def content_hash(self) -> str:
        """Changes with anything that training or evaluation reads; ``fingerprint`` does not."""
        digest = hashlib.sha256(self.fingerprint.encode())
        digest.update(self.train.ratings.tobytes())
        if self.event_types:
            digest.update(repr((list(self.event_types), self.event_weights)).encode())
            digest.update(self.train.types.tobytes())
            digest.update(self.train.type_sets.tobytes())
        if self.dismissed is not None:
            for array in (self.dismissed.offsets, self.dismissed.item_idx):
                digest.update(array.tobytes())
        digest.update(self.catalog.attributes.tobytes())
        for text in self.catalog.texts():
            digest.update(f"{len(text)} {text}".encode())
        test = self.split.test[[USER_ID, ITEM_ID]]
        digest.update(pd.util.hash_pandas_object(test, index=False).to_numpy().tobytes())
        return digest.hexdigest()


def prepare(dataset: Dataset, split: Split) -> TrainingData:
    """Encode the training rows of a split.

    Raises:
        InputError: when a test row is also a training row, or there is too little to train on.
    """
    check_no_leakage(split.train, split.test)
    users = Vocabulary(pd.unique(split.train[USER_ID]).tolist()).sorted()
    items = Vocabulary(dataset.items[ITEM_ID].tolist()).sorted()
    attributes = UserAttributes.from_frame(dataset.users, users)
    event_types = _event_types(dataset)
    train = Histories.from_frame(split.train, users, items, attributes.matrix, event_types)
    if dataset.half_life_days is not None:
        train = _faded(train, dataset.half_life_days)
    if (train.lengths >= 2).sum() < 2 or len(items) < 2:
        raise InputError(
            "at least two users with two training rows each, and two items",
            f"{int((train.lengths >= 2).sum())} such users and {len(items)} items",
            "give more interactions, or hold out fewer (data.num_test, data.test_fraction)",
        )
    catalog = Catalog.from_frame(dataset.items, items)
    fingerprint = _fingerprint(users, items, train)
    return TrainingData(
        dataset.name,
        split,
        users,
        items,
        catalog,
        train,
        fingerprint,
        attributes.names,
        dataset.users,
        event_types,
        dataset.event_weights,
        dataset.count_repeats,
        dataset.half_life_days,
        encoded(dataset.dismissed, split, users, items),
    )


def _faded(train: Histories, half_life_days: float) -> Histories:
    """With weights as they are at the end of these very rows: no later row is looked at."""
    ages = end_of_log(train) - train.timestamps
    weights = train.weights * faded(ages, half_life_days).astype(np.float32)
    return replace(train, weights=weights)


def prepare_all(dataset: Dataset) -> TrainingData:
    """Encode all rows, none held out."""
    rows = dataset.interactions
    return prepare(dataset, Split("none", "all rows; nothing is held out", rows, rows.iloc[:0]))


def _event_types(dataset: Dataset) -> list[str]:
    """The names of types, those of ``event_weights`` first; none where they are too many."""
    if TYPE not in dataset.interactions:
        return []
    weighed = list(dataset.event_weights or ())
    found = set(dataset.interactions[TYPE].unique().tolist())
    if ALL_TYPES in dataset.interactions:
        found |= names_in(dataset.interactions[ALL_TYPES])
    names = [*weighed, *sorted(found - {"", *weighed})]
    if len(names) > _MAX_TYPES:
        log.warning("%d types of events are too many: they are not kept", len(names))
        return []
    return names


def _fingerprint(users: Vocabulary, items: Vocabulary, train: Histories) -> str:
    digest = hashlib.sha256()
    digest.update(users.content_hash().encode())
    digest.update(items.content_hash().encode())
    for array in (train.offsets, train.item_idx, train.timestamps, train.context):
        digest.update(np.ascontiguousarray(array).tobytes())
    # Rows that count alike keep the fingerprint that they had before rows had weights.
    if (train.weights != 1.0).any():
        digest.update(train.weights.tobytes())
    return digest.hexdigest()


def hold_out_random(
    histories: Histories, num_held_out: int, seed: int
) -> tuple[Histories, Histories]:
    """Validation events carved out of training events: a random few of each user.

    At most half of a user's events are held out.

    Returns:
        The remaining and the held-out events.
    """
    ranks = histories.random_ranks(np.random.default_rng(seed))
    held_out = ranks < most_held_out(histories, num_held_out, 0.5)
    return histories.select(~held_out), histories.select(held_out)


def most_held_out(histories: Histories, number: int, share: float) -> NDArray[np.int64]:
    """How many events of its user are held out, for each event: int64 [n].

    Up to ``number``, and of its user's events that share, but one of two or more.
    """
    lengths = histories.lengths
    most = np.maximum((share * lengths).astype(np.int64), lengths > 1)
    return np.minimum(number, most)[histories.user_idx]
