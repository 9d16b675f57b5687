"""Invented titles, genres, years and descriptions for the items of the generator."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.generator_words import (
    GROUPS,
    NEUTRAL,
    OPENINGS,
    SYLLABLES_FIRST,
    SYLLABLES_LAST,
)
from recsys.schema import DESCRIPTION, GENRE_SEPARATOR, GENRES, TITLE, YEAR

WRONG_THEME = 0.1
"""Share of items whose words are those of another theme: text is informative, not a label."""

Ints = NDArray[np.int64]
Words = NDArray[np.object_]


def item_frame(rng: np.random.Generator, group: Ints, theme: Ints, circle: Ints) -> pd.DataFrame:
    """``title`` (unique), ``description``, ``genres`` and ``year`` of N items.

    Args:
        group, theme, circle: int64 [N], as in ``generator.Tree``. The films of a circle are set in
            one invented place.
    """
    size = len(theme)
    themes = [t for g in GROUPS for t in g.themes]
    written = np.where(
        rng.random(size) < WRONG_THEME, rng.integers(0, theme.max() + 1, size), theme
    )
    noun = _pick(rng, [t.nouns for t in themes], written)
    subject = _pick(rng, [t.subjects for t in themes], written)
    mood = _pick(rng, [g.mood for g in GROUPS], group)
    first, last = (
        np.array(words, dtype=object)[rng.integers(0, len(words), circle.max() + 1)[circle]]
        for words in (SYLLABLES_FIRST, SYLLABLES_LAST)
    )
    place = first + last
    pattern = rng.integers(0, 3, size)
    title = np.select(
        [pattern == 0, pattern == 1],
        ["The " + mood + " " + noun, "The " + noun + " of " + place],
        mood + " " + noun,
    )
    opening, neutral = (
        np.array(words, dtype=object)[rng.integers(0, len(words), size)]
        for words in (OPENINGS, NEUTRAL)
    )
    setting = np.where(rng.random(size) < 0.7, " Set in " + place + ".", "")
    return pd.DataFrame(
        {
            TITLE: pd.array(_unique(title), "str"),
            DESCRIPTION: pd.array(opening + " " + subject + "." + setting + " " + neutral, "str"),
            GENRES: pd.array(_genres(rng, group), "str"),
            YEAR: pd.array(1960 + (64 * rng.beta(2.0, 1.0, size)).astype(np.int64), "Int64"),
        }
    )


def _pick(rng: np.random.Generator, choices: Sequence[Sequence[str]], label: Ints) -> Words:
    """For each label [N] one of its words."""
    sizes = np.array([len(words) for words in choices])
    flat = np.array([word for words in choices for word in words], dtype=object)
    picked: Words = flat[(np.cumsum(sizes) - sizes)[label] + rng.integers(0, sizes[label])]
    return picked


def _unique(titles: Words) -> Words:
    """Number repeated titles like sequels: "X", "X 2", "X 3"."""
    part = pd.Series(titles).groupby(titles).cumcount().to_numpy() + 1
    return np.where(part == 1, titles, titles + " " + part.astype(str).astype(object))


def _genres(rng: np.random.Generator, group: Ints) -> Words:
    """The group's genre, often its second one, and at times one of another group instead."""
    main = np.array([g.genre for g in GROUPS], dtype=object)
    second = np.array([g.second for g in GROUPS], dtype=object)
    shown = np.where(
        rng.random(len(group)) < 0.1, rng.integers(0, group.max() + 1, len(group)), group
    )
    with_second = (rng.random(len(group)) < 0.5) & (main[shown] != second[group])
    return np.where(with_second, main[shown] + GENRE_SEPARATOR + second[group], main[shown])
