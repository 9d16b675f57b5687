"""What rules read of the catalogue."""

from collections.abc import Sequence
from copy import copy

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.schema import GENRE_SEPARATOR, GENRES, YEAR

Items = NDArray[np.int64]

UNKNOWN_YEAR = 0


class ItemTable:
    """Genres and years of items 1..N.

    Args:
        genres: of each item, in order; no padding. years: int64 [N], 0 = unknown.
    """

    def __init__(self, genres: Sequence[Sequence[str]], years: Items) -> None:
        self._genres: list[Sequence[str]] = [(), *genres]
        self.years = np.concatenate([[UNKNOWN_YEAR], years]).astype(np.int64)
        by_genre: dict[str, list[int]] = {}
        for item, names in enumerate(self._genres):
            for name in names:
                by_genre.setdefault(_key(name), []).append(item)
        # By genre its items, not by item its genres: tags may be as many as items.
        self._items = {key: np.array(items, np.int64) for key, items in by_genre.items()}

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> "ItemTable":
        """From a catalogue in the vocabulary's order; columns as in ``Dataset.items``."""
        return cls(*_read(frame))

    def __len__(self) -> int:
        """Number of items N."""
        return len(self.years) - 1

    def with_items(self, item_idx: Items, frame: pd.DataFrame) -> "ItemTable":
        """With items int64 [m] as in the frame: those beyond N are added, others replaced.

        This object stays as it is.
        """
        genres, years = _read(frame)
        other = copy(self)
        missing = max(int(item_idx.max(initial=0)) - len(self), 0)
        other.years = np.concatenate([self.years, np.full(missing, UNKNOWN_YEAR)])
        other.years[item_idx] = years
        other._genres = [*self._genres, *([()] * missing)]
        other._items = dict(self._items)
        for item, names in zip(item_idx.tolist(), genres, strict=True):
            for name in other._genres[item]:
                own = other._items[_key(name)]
                other._items[_key(name)] = own[own != item]
            for name in names:
                other._items[_key(name)] = np.append(other.of_genre(name), item)
            other._genres[item] = names
        return other

    def of_genre(self, name: str) -> Items:
        """Items int64 [n] of a genre, upper and lower case alike; none of an unknown one."""
        return self._items.get(_key(name), np.zeros(0, np.int64))

    def values(self, attribute: str, item: int) -> Sequence[str | int]:
        """What an item has of ``genre``, ``year`` or ``decade``."""
        if attribute == "genre":
            return self._genres[item]
        year = int(self.years[item])
        if year == UNKNOWN_YEAR:
            return ()
        return (year,) if attribute == "year" else (year // 10 * 10,)


def _read(frame: pd.DataFrame) -> tuple[list[Sequence[str]], Items]:
    texts = frame[GENRES].fillna("").tolist() if GENRES in frame else [""] * len(frame)
    genres = [
        tuple(dict.fromkeys(name.strip() for name in text.split(GENRE_SEPARATOR) if name.strip()))
        for text in texts
    ]
    if YEAR not in frame:
        return list(genres), np.zeros(len(frame), np.int64)
    years = pd.to_numeric(frame[YEAR]).astype("Int64").fillna(UNKNOWN_YEAR)
    return list(genres), years.to_numpy().astype(np.int64)


def _key(name: str) -> str:
    return name.strip().casefold()
