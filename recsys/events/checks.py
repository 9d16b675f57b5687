"""Whether an event or an item can be stored, before any of its batch is."""

import math

from recsys.errors import InputError
from recsys.events.ids import IdTypes, check_id_text
from recsys.events.text import check_text
from recsys.events.types import Event, Item

_LARGEST = 2**63 - 1


def check_event(event: Event, ids: IdTypes) -> None:
    """Raise InputError when the event cannot be stored."""
    check_id_text(event.event_id, "event_id")
    ids.user_text(event.user_id)
    ids.item_text(event.item_id)
    if event.value is not None and not math.isfinite(event.value):
        raise InputError("value to be finite", str(event.value), "leave it out")
    _check_integer(event.timestamp, "timestamp")


def check_item(item: Item, ids: IdTypes) -> None:
    """Raise InputError when the item cannot be stored."""
    ids.item_text(item.item_id)
    for name in ("title", "description", "genres", "release_date"):
        check_text(getattr(item, name), name)
    check_text(item.text_fingerprint or "", "text_fingerprint")
    _check_integer(item.year or 0, "year")


def _check_integer(number: int, what: str) -> None:
    if abs(number) > _LARGEST:
        raise InputError(f"{what} of at most 64 bits", str(number), f"correct {what}")
