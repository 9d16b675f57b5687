"""What a SQLite file holds of one user, read in the thread that asks.

A thread for it would cost more than the read: one way and back, while other threads compute.
"""

import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy.dialects import sqlite

from recsys.events import reads
from recsys.events.ids import IdTypes
from recsys.events.types import UserState

if TYPE_CHECKING:
    from recsys.schema import ExternalId

_LONG_SECONDS, _PAUSE_SECONDS = 0.02, 1.0
"""A read that takes longer has kept its thread from other work: for a while there are no more."""


class _Row(NamedTuple):
    """As of ``reads.STATES``."""

    user_id: str
    version: int
    forgotten_at: int | None
    item_id: str | None
    timestamp: int | None
    dismissed: int | None
    rating: float | None
    types: int | None


class ImmediateReader:
    """Reads without waiting: neither for a lock nor for another thread.

    Args:
        path: of the file, which is there.

    Raises:
        sqlite3.Error: when it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            path, timeout=0.0, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA query_only = ON")
        self._not_before = 0.0

    def user_state(self, user_id: "ExternalId", max_items: int, ids: IdTypes) -> UserState | None:
        """As ``reads.user_states``; None where that has to be asked: the file is locked or fails,
        there are more than ``max_items`` states, or the latest read took long.

        Raises:
            InputError: for an id that cannot be stored.
        """
        started = time.monotonic()
        if started < self._not_before:
            return None
        text, tombstone = ids.user_text(user_id), ids.tombstone(user_id)
        try:
            if self._connection.execute(_IS_THERE, (text, tombstone)).fetchone() is None:
                rows = []
            else:
                parameters = _parameters(text, tombstone, max_items)
                rows = list(map(_Row._make, self._connection.execute(_STATES, parameters)))
        except sqlite3.Error:
            return None
        if time.monotonic() - started > _LONG_SECONDS:
            self._not_before = started + _PAUSE_SECONDS
        own = [row for row in rows if row.user_id == text]
        if len(own) >= max_items:
            return None
        gone = [row for row in rows if row.user_id == tombstone]
        return reads.state_of(user_id, own, gone, reads.NONE_OLDER, ids)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


_BY_NAME = {"user_ids": ["", ""], "offset": 0}
_IS_THERE = "SELECT 1 FROM recsys_users WHERE user_id IN (?, ?)"
_COMPILED = reads.STATES.params(_BY_NAME).compile(
    dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True}
)
_STATES = str(_COMPILED)
_PLACES = tuple(_COMPILED.positiontup or ())
_OURS = ("user_ids_1", "user_ids_2", "offset")
if not {*_OURS} <= {*_PLACES}:
    raise ImportError(f"expected parameters {_OURS} as of SQLAlchemy 2.1; found {_PLACES}")


def _parameters(text: str, tombstone: str, max_items: int) -> list[object]:
    given = dict[str, object](zip(_OURS, (text, tombstone, max_items - 1), strict=True))
    return [given[name] if name in given else _COMPILED.binds[name].value for name in _PLACES]
