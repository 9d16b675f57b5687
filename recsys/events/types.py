"""What the event store takes and gives."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

# schema.py imports PyTorch, which takes seconds; the command line needs none of it.
if TYPE_CHECKING:
    from recsys.schema import ExternalId


EventType = Literal["view", "click", "cart", "like", "rating", "purchase", "dismiss"]

TOLD_TYPES = ("view", "click", "like", "rating", "purchase", "cart")
"""The types by which a user has an item. A set of them is a number, bit by bit in this order, which
is stored: new types go to the end.
"""


def type_set(names: Iterable[str]) -> int:
    """The set of the types of these names; others, such as ``dismiss``, are in no set."""
    return sum(1 << TOLD_TYPES.index(name) for name in {*names} & {*TOLD_TYPES})


def type_names(types: int) -> list[str]:
    """The names of the types in a set."""
    return [name for place, name in enumerate(TOLD_TYPES) if types >> place & 1]


def rating_of(type_: EventType, value: float | None) -> float | None:
    """The value where it is a rating: what senders put into other events means something else."""
    return value if type_ == "rating" else None


Position = int
"""Number of a change in the order in which changes were committed, from 1; 0 is before all."""


class StoreUnavailableError(Exception):
    """The database is locked, gone, full or too slow; it may be back at the next call.

    A write that raised this may have been committed nevertheless. All writes may be repeated:
    events have ids, and what was said of an item or a user is said again.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"expected the event store's database to answer; found {reason}; retry")


class StoreReplacedError(StoreUnavailableError):
    """The database is another one than it was, e.g. a restored one: it has to be opened anew."""


@dataclass(frozen=True)
class Event:
    """What a user did with an item.

    event_id: chosen by the sender, unique among all events. value: finite, e.g. the rating.
    timestamp: unix seconds.
    """

    event_id: str
    user_id: "ExternalId"
    item_id: "ExternalId"
    type: EventType
    value: float | None
    timestamp: int


@dataclass(frozen=True)
class Item:
    """An item that was added, or changed, since training.

    genres: joined by ``|``, may be empty. release_date: YYYY-MM-DD, may be empty. text_vector:
    float32 values, in the machine's byte order. text_fingerprint: of what the vector was made from.
    """

    item_id: "ExternalId"
    title: str
    description: str
    genres: str
    year: int | None
    release_date: str
    text_vector: bytes | None
    text_fingerprint: str | None


@dataclass(frozen=True)
class StoredItem(Item):
    """An item as the store has it.

    added_at: of its first write, unix seconds. position: of its latest write.
    """

    added_at: int
    position: Position


@dataclass(frozen=True)
class UserState:
    """What a user thinks of items, one entry per item, oldest first by the latest event's time,
    then by order of arrival.

    version: grows with each change to the user's data; 0 when the store knows nothing of the user.
    item_ids, timestamps (unix seconds; of the latest event), dismissed (whether that was a
    dismissal), ratings (the latest; None where there is none), types (the set of the types of all
    events, see ``type_set``; 0 where it is not known): of the latest items. older, older_types: the
    ids of all others that the user has had, and the types of each. older_dismissed,
    older_dismissed_at: of all others that the user has dismissed.
    forgotten_at: when the user's data was deleted, unix seconds; what was known before that time,
    the training log's part included, must not be used. Events stored since then are here.
    """

    user_id: "ExternalId"
    version: int
    item_ids: "Sequence[ExternalId]" = ()
    timestamps: Sequence[int] = ()
    dismissed: Sequence[bool] = ()
    ratings: Sequence[float | None] = ()
    types: Sequence[int] = ()
    older: "Sequence[ExternalId]" = ()
    older_types: Sequence[int] = ()
    older_dismissed: "Sequence[ExternalId]" = ()
    older_dismissed_at: Sequence[int] = ()
    forgotten_at: int | None = None


@dataclass(frozen=True)
class PairState:
    """What a user thinks of an item: see ``UserState``."""

    user_id: "ExternalId"
    item_id: "ExternalId"
    timestamp: int
    dismissed: bool
    rating: float | None
    types: int


@dataclass(frozen=True)
class Appended:
    """What became of a batch of events.

    accepted: stored by this call. duplicates: events whose id was stored before, or came before in
    the batch. versions: of each user in the batch, a ``UserState.version`` that has these events.
    """

    accepted: int
    duplicates: int
    versions: "Mapping[ExternalId, int]"


@dataclass(frozen=True)
class Changes:
    """What was committed after one position, up to ``position``; each list in order of commits.

    ``forgotten``, the tombstones of users (see ``IdTypes``), is to be applied before ``events``:
    those of a forgotten user came later. ``pruned``: whether events have expired. ``more``: whether
    changes were left for the next call.
    """

    position: Position
    events: list[Event]
    items: list[StoredItem]
    forgotten: list[str]
    pruned: bool
    more: bool
