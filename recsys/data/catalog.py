"""The items as models see them: aligned to the vocabulary, with text and multi-hot attributes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.schema import (
    DESCRIPTION,
    GENRE_SEPARATOR,
    GENRES,
    ITEM_ID,
    RELEASE_DATE,
    TITLE,
    YEAR,
)

MAX_GENRES = 256
"""The most common genres become attributes; the rest (free tags) reach the models as text alone."""
MIN_RELEASED = 5
"""A quarter (or a year, where no date is known) in which fewer items were released is left out."""


@dataclass(frozen=True)
class Catalog:
    """All items of a vocabulary, in its order.

    items: row ``p`` is the item with index ``p + 1``; columns ``item_id, title, description,
        genres`` (str, may be empty), ``year`` (Int64, may be missing), ``release_date`` (str, may
        be empty), then any others.
    attributes: float32 [N + 1, A], multi-hot; row 0 (padding) is zeros.
    attribute_names: A names, e.g. ``genre: Action``, ``decade: 1990s`` and ``released: 1997Q2``.
    """

    items: pd.DataFrame
    attributes: NDArray[np.float32]
    attribute_names: list[str]

    @classmethod
    def from_frame(
        cls,
        items: pd.DataFrame,
        vocabulary: Vocabulary,
        attribute_names: Sequence[str] | None = None,
    ) -> "Catalog":
        """Align ``items`` (as in ``Dataset``) to the vocabulary; other items are left out.

        Args:
            attribute_names: the columns of a catalogue that a model was trained on; attributes
                outside of them are ignored. None takes all decades, the ``MAX_GENRES`` most
                common genres (ties by name), and times of release of ``MIN_RELEASED`` items.

        Raises:
            InputError: when the vocabulary holds an item that the frame lacks.
        """
        index = vocabulary.encode(items[ITEM_ID])
        row_of = np.full(len(vocabulary) + 1, -1, dtype=np.int64)
        row_of[index] = np.arange(len(items))
        missing = np.flatnonzero(row_of[1:] < 0)
        if len(missing):
            raise InputError(
                "each item of the vocabulary in the items table",
                f"{len(missing):,} without a row, first {vocabulary.decode(missing[:3] + 1)}",
                "add them to the items table",
            )
        aligned = items.iloc[row_of[1:]].reset_index(drop=True)
        for column in (DESCRIPTION, GENRES, RELEASE_DATE):
            text = aligned[column] if column in aligned else pd.Series("", aligned.index)
            aligned[column] = text.astype("str").fillna("")
        aligned[YEAR] = aligned.get(YEAR, pd.NA)
        released = pd.to_datetime(aligned[RELEASE_DATE], format="%Y-%m-%d", errors="coerce")
        aligned[YEAR] = aligned[YEAR].astype("Int64").fillna(released.dt.year.astype("Int64"))
        leading = [ITEM_ID, TITLE, DESCRIPTION, GENRES, YEAR, RELEASE_DATE]
        aligned = aligned[leading + [c for c in aligned if c not in leading]]

        labels = _labels(aligned)
        names = _names(labels) if attribute_names is None else list(attribute_names)
        attributes = np.zeros((len(aligned) + 1, len(names)), dtype=np.float32)
        columns = pd.Index(names, dtype="str").get_indexer(pd.Index(labels))
        kept = columns >= 0
        attributes[labels.index.to_numpy()[kept] + 1, columns[kept]] = 1
        return cls(aligned, attributes, names)

    def __len__(self) -> int:
        """Number of items, padding not counted."""
        return len(self.items)

    def texts(self) -> list[str]:
        """One text per item [N]; entry ``p`` is of the item with index ``p + 1``."""
        columns = [self.items[c] for c in (TITLE, YEAR, GENRES, DESCRIPTION)]
        return [
            item_text(title, None if pd.isna(year) else int(year), genres, description)
            for title, year, genres, description in zip(*columns, strict=True)
        ]


def item_text(title: str, year: int | None = None, genres: str = "", description: str = "") -> str:
    """What the text encoder reads of an item.

    "The Empire Strikes Back (1980). Genres: Action, Adventure. <description>"; what is missing is
    left out. ``genres`` are joined by ``|``.
    """
    parts = [f"{title} ({year})" if year is not None else title]
    if names := [genre for genre in genres.split(GENRE_SEPARATOR) if genre]:
        parts.append("Genres: " + ", ".join(names))
    text = ". ".join(parts) + "."
    return f"{text} {description.strip()}" if description.strip() else text


def _labels(items: pd.DataFrame) -> "pd.Series[str]":
    """The attributes of each row, long: index = row number, value = attribute name."""
    rows = items.set_index(np.arange(len(items)))
    genres = rows[GENRES].str.split(GENRE_SEPARATOR).explode().astype("str").str.strip()
    genres = "genre: " + genres[genres != ""]
    years = rows[YEAR].dropna()
    decades = "decade: " + (years // 10 * 10).astype("str") + "s"
    dates = pd.to_datetime(rows[RELEASE_DATE], format="%Y-%m-%d", errors="coerce").dropna()
    quarters = dates.dt.to_period("Q").astype("str")
    undated = years.drop(quarters.index, errors="ignore").astype("str")
    released = "released: " + pd.concat([quarters, undated]).astype("str")
    labels: pd.Series[str] = pd.concat([genres, decades.astype("str"), released]).astype("str")
    return labels


def _names(labels: "pd.Series[str]") -> list[str]:
    # sort_index first: a stable sort by count then breaks ties by name.
    counts = labels.value_counts().sort_index()
    names = pd.Series(counts.index, dtype="str")
    genres = counts[names.str.startswith("genre: ").to_numpy(bool)]
    common = genres.sort_values(ascending=False, kind="stable").index[:MAX_GENRES]
    decades = names[names.str.startswith("decade: ")]
    released = counts[names.str.startswith("released: ").to_numpy(bool)]
    return [*sorted(common), *decades, *released.index[released >= MIN_RELEASED]]
