"""Users' and items' ids as the text that the database holds."""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

from recsys.errors import InputError
from recsys.events.text import check_text

if TYPE_CHECKING:
    from recsys.schema import ExternalId

_MAX_ID_BYTES = 512
"""Of UTF-8. PostgreSQL's indexes take no more than 2,700 bytes for an entry."""


_TOMBSTONE = "forgotten:"


@dataclass(frozen=True)
class IdTypes:
    """Whether ids of users, and of items, are integers (else strings).

    secret: of one store, for tombstones.
    """

    integer_users: bool
    integer_items: bool
    secret: bytes = field(default=b"", repr=False)

    def user_text(self, user_id: "ExternalId") -> str:
        """As stored.

        Raises:
            InputError: when the id is of the other type, too long, or holds what cannot be stored.
        """
        return _text(user_id, "user_id", self.integer_users)

    def item_text(self, item_id: "ExternalId") -> str:
        """As stored; raises like ``user_text``."""
        return _text(item_id, "item_id", self.integer_items)

    def tombstone(self, user_id: "ExternalId") -> str:
        """What is left of a user whose data was deleted: tells who it was to those alone who have
        the store and ask for this very id. Raises like ``user_text``.
        """
        digest = blake2b(self.user_text(user_id).encode(), key=self.secret, digest_size=20)
        return _TOMBSTONE + digest.hexdigest()

    def can_hold_user(self, user_id: "ExternalId") -> bool:
        """Whether there can be anything stored of this user."""
        try:
            self.user_text(user_id)
        except InputError:
            return False
        return True

    def user(self, text: str) -> "ExternalId":
        """The id that is stored as this text."""
        return int(text) if self.integer_users else text

    def item(self, text: str) -> "ExternalId":
        """The id that is stored as this text."""
        return int(text) if self.integer_items else text


def check_id_text(text: str, what: str) -> None:
    """Raise InputError unless this can be a stored id."""
    check_text(text, what)
    if not 0 < len(text.encode()) <= _MAX_ID_BYTES:
        raise InputError(
            f"{what} of 1 to {_MAX_ID_BYTES} bytes", f"{len(text.encode())}", "send another id"
        )


def _text(external_id: "ExternalId", what: str, integer: bool) -> str:
    if isinstance(external_id, bool) or isinstance(external_id, int) != integer:
        kind = "an integer" if integer else "a string"
        raise InputError(f"{what} to be {kind}", repr(external_id), "send ids as in training")
    if isinstance(external_id, int):
        if not -(2**63) <= external_id < 2**63:
            raise InputError(f"{what} of at most 64 bits", str(external_id), "send another id")
        return str(external_id)
    check_id_text(external_id, what)
    return external_id
