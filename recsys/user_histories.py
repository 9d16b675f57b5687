"""The history behind each request: the training log, what has come in since, or a given one."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.histories import Histories, end_of_log
from recsys.data.latest import latest_rows
from recsys.data.type_sets import have_any
from recsys.data.user_attributes import encode_attributes
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.events.strengths import strengths_of
from recsys.events.types import EventType, type_set
from recsys.request import Request, UserEvents
from recsys.schema import ExternalId, HistoryBatch

Items = NDArray[np.int64]
Strengths = NDArray[np.float32]

# More than there are items: a pair is one number.
_STRIDE = 1 << 32
_NO_ITEMS: Items = np.zeros(0, np.int64)
_AFTER_ALL_ELSE = np.iinfo(np.int64).max


class UserHistories:
    """Turns requests into padded histories.

    Args:
        log: the training events. attribute_names: of the columns of its ``context``. event_types:
            names of its types. dismissed: what its users have dismissed, as events. event_weights:
            what training said that an event of each type counts.
    """

    def __init__(
        self,
        log: Histories,
        users: Vocabulary,
        items: Vocabulary,
        attribute_names: Sequence[str],
        event_types: Sequence[str] = (),
        dismissed: Histories | None = None,
        event_weights: Mapping[str, float] | None = None,
    ) -> None:
        self.log = log
        self.users = users
        self.items = items
        self.attribute_names = attribute_names
        self.event_types = event_types
        self._dismissed = dismissed
        self._event_weights = event_weights
        self.end_of_log = end_of_log(log)

    def with_items(self, items: Vocabulary) -> "UserHistories":
        """For more items; this object stays as it is."""
        other = copy(self)
        other.items = items
        return other

    def user_idx(self, requests: Sequence[Request]) -> list[int]:
        """Of the user whose part of the log may be used; 0 where there is none."""
        ids = {request.user_id for request in requests if request.user_id is not None}
        known = dict(zip(ids, self.users.encode(ids).tolist(), strict=True))
        return [
            0 if r.user_id is None or r.events.forgets_log else known[r.user_id] for r in requests
        ]

    def are_since(self, user_idx: Items, item_idx: Items, times: Items) -> NDArray[np.bool_]:
        """Which events [n] the log does not have: bool [n].

        Those after its end, and those that came late: from before it, of a user and an item that it
        does not have together.
        """
        keys = self._logged_pairs
        pairs = user_idx * _STRIDE + item_idx
        places = np.minimum(np.searchsorted(keys, pairs), max(len(keys) - 1, 0))
        is_logged = (user_idx > 0) & (keys[places] == pairs if len(keys) else False)
        found: NDArray[np.bool_] = (times > self.end_of_log) | ~is_logged
        return found

    @cached_property
    def _logged_pairs(self) -> Items:
        return np.sort(self.log.user_idx * _STRIDE + self.log.item_idx)

    def batch(self, requests: Sequence[Request]) -> HistoryBatch:
        """Padded histories [B, L], in time order.

        Where the log's events weigh differently, later ones weigh as their types do in training,
        and those of a given history, of which no type is told, as an event does on average.
        """
        users = np.array(self.user_idx(requests), dtype=np.int64)
        logged = np.array([_is_logged(request) for request in requests])
        # A known user's attributes count with a history given in the request, too.
        context = torch.from_numpy(self.log.context[users])
        for number, request in enumerate(requests):
            if request.context is not None:
                context[number] = torch.from_numpy(self._attributes(request.context))
        batch = self.log.pad(users * logged)._replace(context=context)
        rows = np.flatnonzero(~logged).tolist()
        own = {row: self._events(requests[row], int(users[row])) for row in rows}
        if not own:
            return batch
        width = max(batch.mask.shape[1], *(len(items) for items, _, _ in own.values()))
        item_idx, timestamps, mask = (_widened(part, width) for part in batch[:3])
        weights = None if batch.weights is None else _widened(batch.weights, width)
        for row, (items, times, strengths) in own.items():
            item_idx[row, : len(items)] = torch.from_numpy(items)
            timestamps[row, : len(items)] = torch.from_numpy(times)
            mask[row, : len(items)] = True
            if weights is not None:
                weights[row, : len(items)] = torch.from_numpy(strengths)
        return HistoryBatch(item_idx, timestamps, mask, context, weights)

    def known_items(self, item_ids: Sequence[ExternalId]) -> Items:
        """Indices of those that the catalogue has."""
        if not len(item_ids):
            return _NO_ITEMS
        encoded = self.items.encode(item_ids)
        return encoded[encoded > 0]

    def had_by(self, request: Request, types: Sequence[str]) -> Items:
        """Indices of the items that the user has had by an event of one of the types.

        Of events whose type is not known, such as those of a given history, too. Dismissed items
        may be among them.
        """
        if request.history is not None:
            return self.known_items(request.history)
        (user,) = self.user_idx([request])
        own = slice(self.log.offsets[user], self.log.offsets[user + 1])
        numbers = [place for place, name in enumerate(self.event_types, 1) if name in types]
        logged = self.log.item_idx[own][have_any(self.log.type_sets[own], numbers)]
        events, wanted = request.events, type_set(types)
        later = [
            *_of_types(events.item_ids, events.types, wanted),
            *_of_types(events.older, events.older_types, wanted),
        ]
        return np.concatenate([logged, self.known_items(later)])

    def dismissed(self, request: Request) -> Items:
        """Indices of what the training data says the user has dismissed.

        Without items of later events, which take a dismissal back.
        """
        (user,) = self.user_idx([request])
        if self._dismissed is None or not user:
            return _NO_ITEMS
        own = slice(self._dismissed.offsets[user], self._dismissed.offsets[user + 1])
        items, events = self._dismissed.item_idx[own], request.events
        if not len(items) or not len(events.item_ids):
            return items
        later = np.zeros(len(self.items) + 1, np.int64)
        later[self.items.encode(events.item_ids)] = events.timestamps
        return items[later[items] < self._dismissed.timestamps[own]]

    def check_types(self, types: Sequence[str] | None) -> None:
        """Raise InputError for a type that neither training nor the event store can have met."""
        known = dict.fromkeys([*self.event_types, *get_args(EventType)])
        unknown = [name for name in types or () if name not in known]
        if unknown:
            raise InputError(
                f"exclude_types of the types of events that are known: {', '.join(known)}",
                repr(unknown[0])[:100],
                "correct it",
            )

    def check_context(self, context: Mapping[str, str | float]) -> None:
        """Raise InputError for attributes that training has not met."""
        self._attributes(context)

    def _attributes(self, context: Mapping[str, str | float]) -> NDArray[np.float32]:
        return encode_attributes(context, self.attribute_names, self.log.context[0])

    def _events(self, request: Request, user: int) -> tuple[Items, Items, Strengths]:
        """Items, times and weights, where these are not the log's alone."""
        if request.history is not None:
            given = self.known_items(request.history)
            items = given[latest_rows(given, np.arange(len(given)))]
            # Without times of their own, the events count as a sitting that ends now, where "now"
            # is the end of the training data.
            times = self.end_of_log - np.arange(len(items) - 1, -1, -1)
            return items, times, np.ones(len(items), np.float32)
        return self._with_later(user, request.events)

    def _with_later(self, user: int, events: UserEvents) -> tuple[Items, Items, Strengths]:
        """The log's events and later ones, of each item the latest, as training data would be.

        Not those of items whose latest event is a dismissal.
        """
        own = slice(self.log.offsets[user], self.log.offsets[user + 1])
        logged, dismissed = self.log.item_idx[own], self.items.encode(events.dismissed)
        had = self.items.encode(events.item_ids)
        items = np.concatenate([logged, dismissed, had])
        dismissed_at = np.full(len(dismissed), _AFTER_ALL_ELSE)
        if len(events.dismissed_at):
            dismissed_at = np.array(events.dismissed_at, np.int64)
        times = np.concatenate(
            [self.log.timestamps[own], dismissed_at, np.array(events.timestamps, np.int64)]
        )
        tells_a_taste = np.ones(len(items), bool)
        tells_a_taste[len(logged) : len(logged) + len(dismissed)] = False
        kept = latest_rows(items, times)
        kept = kept[tells_a_taste[kept] & (items[kept] > 0)]
        # What the models know of time ends with the training data: what has come in since counts
        # as a sitting at its end.
        return (
            items[kept],
            np.minimum(times[kept], self.end_of_log),
            self._strengths(items, own, events)[kept],
        )

    def _strengths(self, items: Items, logged: slice, events: UserEvents) -> Strengths:
        """What each row of ``_with_later`` counts, as the log's events do: float32 [n].

        A pair of the log counts no less than there, whatever comes later.
        """
        found = np.ones(len(items), np.float32)
        if self.log.are_alike:
            return found
        first, last = logged.stop - logged.start, len(items) - len(events.item_ids)
        found[:first] = self.log.relative_weights[logged]
        found[first:last] = 0.0  # dismissals
        types = events.types if len(events.types) else [0] * len(events.item_ids)
        later = strengths_of(types, self._event_weights).astype(np.float32)
        found[last:] = later / np.float32(self.log.mean_weight)
        _, place = np.unique(items, return_inverse=True)
        strongest = np.zeros(len(items), np.float32)
        np.maximum.at(strongest, place, found)
        return strongest[place]


def _of_types(
    item_ids: Sequence[ExternalId], types: Sequence[int], wanted: int
) -> Iterable[ExternalId]:
    """Those of the items whose set of types has a wanted one, or is not known."""
    if not len(types):
        return item_ids
    return [item for item, own in zip(item_ids, types, strict=True) if not own or own & wanted]


def _is_logged(request: Request) -> bool:
    """Whether the history is the log's alone."""
    events = request.events
    return request.history is None and not len(events.item_ids) and not len(events.dismissed)


def _widened(padded: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(padded, (0, width - padded.shape[1]))
