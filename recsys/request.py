"""What a list is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys.rules.rules import PLAIN, Rules
from recsys.schema import ExternalId


@dataclass(frozen=True, eq=False)
class UserEvents:
    """What has come in of a user since training.

    One state per item, by the item's latest event. version: another number after each change.
    item_ids: of those that tell a taste, oldest first. timestamps: of each, unix seconds. ratings:
    of each; None where it is none. types: of each, the set of types by which the user has had it
    (see ``recsys.events.types.type_set``); 0, or no entries at all, where they are not known.
    older: what the user had so long ago that it tells no taste, and is not to be shown again
    either. older_types: of each, as ``types``. dismissed: item ids that the user does not want to
    see. dismissed_at: unix seconds of each; where it is empty, after all else. forgets_log: whether
    the training log's events and the attributes of the user must not be used.
    """

    version: int
    item_ids: Sequence[ExternalId] = ()
    timestamps: Sequence[int] = ()
    ratings: Sequence[float | None] = ()
    types: Sequence[int] = ()
    older: Sequence[ExternalId] = ()
    older_types: Sequence[int] = ()
    dismissed: Sequence[ExternalId] = ()
    dismissed_at: Sequence[int] = ()
    forgets_log: bool = False


NO_EVENTS = UserEvents(version=0)


@dataclass(frozen=True, eq=False)
class Request:
    """One request for a ranked list.

    Either ``user_id`` (whose stored history is used, and ``events`` with it) or ``history`` (item
    ids, oldest first, of which each counts where it is last; wins when given). Items of the
    history, of ``exclude`` and dismissed ones are never returned, unless ``rules`` have it
    otherwise.

    context: values by attribute of users, such as ``{"age": 24}``, in place of stored ones.
    text_vector: float32 [T] of a text that says what is wanted, by the encoder of the items' texts.
    """

    top_k: int
    user_id: ExternalId | None = None
    history: Sequence[ExternalId] | None = None
    exclude: Sequence[ExternalId] = field(default_factory=tuple)
    events: UserEvents = NO_EVENTS
    context: Mapping[str, str | float] | None = None
    text_vector: NDArray[np.float32] | None = None
    rules: Rules = PLAIN
