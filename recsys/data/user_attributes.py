"""User attributes as models see them: one-hot categories and ranges of numbers."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.cells import NUMBER
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.schema import USER_ID

NUM_RANGES = 7
"""Numbers with more distinct values than this are cut into about as many equally full ranges."""
MIN_SHARE = 0.01
MIN_USERS = 5
"""A category of fewer users (a postcode, a name) says nothing that generalises; it is left out."""

_RANGE = re.compile(r"(-?[\d.e+-]+) to (-?[\d.e+-]+)")
_BOOLEANS = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class UserAttributes:
    """matrix: float32 [U + 1, A], 1 where a user has an attribute. Row 0, the unknown user, and
    users of whom no attribute is known have the average of the others: the best guess at them.
    names: A names, e.g. ``gender: F`` and ``age: 25 to 31``.
    """

    matrix: NDArray[np.float32]
    names: list[str]

    @classmethod
    def from_frame(cls, users: pd.DataFrame | None, vocabulary: Vocabulary) -> "UserAttributes":
        """Encode every column of ``users`` (as in ``Dataset``) but the id.

        Users that the vocabulary lacks, that is, without training rows, have no say in which
        categories and ranges there are.
        """
        if users is None:
            return cls(np.zeros((len(vocabulary) + 1, 0), dtype=np.float32), [])
        index = vocabulary.encode(users[USER_ID])
        known = users[index > 0]
        index = index[index > 0]
        columns, names = [], []
        for column in known.columns.drop(USER_ID):
            labels = _labels(known[column])
            counts = labels.value_counts()
            kept = counts.index[counts >= max(MIN_USERS, MIN_SHARE * len(known))]
            for label in sorted(kept):
                columns.append((labels == label).fillna(False).to_numpy(np.float32))
                names.append(f"{column}: {label}")
        values = np.zeros((len(vocabulary) + 1, len(names)), dtype=np.float32)
        if names:
            values[index] = np.stack(columns, axis=1)
            known_users = values.any(axis=1)
            values[~known_users] = values[known_users].mean(axis=0)
        return cls(values, names)


def align_users(users: pd.DataFrame | None, vocabulary: Vocabulary) -> pd.DataFrame:
    """Ids and attributes of the vocabulary's users in its order, empty where none are known.

    Args:
        users: as in ``Dataset``.
    """
    ids = pd.Index(vocabulary.ids, name=USER_ID)
    if users is None:
        return pd.DataFrame({USER_ID: ids})
    # Nullable types, so that whole numbers stay such where some are missing.
    return users.set_index(USER_ID).convert_dtypes().reindex(ids).reset_index()


def _labels(values: "pd.Series[str]") -> "pd.Series[str]":
    """Each user's category or range, as text; missing values stay missing."""
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if number and values.nunique() > NUM_RANGES:
        ranges = pd.qcut(values, NUM_RANGES, labels=False, duplicates="drop")
        ends = values.groupby(ranges).agg(["min", "max"])
        texts = ends["min"].map("{:g}".format) + " to " + ends["max"].map("{:g}".format)
        return ranges.map(texts).astype("string")
    return values.astype("string")


def encode_attributes(
    values: Mapping[str, str | float], names: Sequence[str], average: NDArray[np.float32]
) -> NDArray[np.float32]:
    """One user's attributes, as ``UserAttributes.from_frame`` would encode them: float32 [A].

    Args:
        values: by field. One whose value was in training too rare to count has no attribute there,
            as in training; a number that lies between two ranges is put into the nearest.
        names: of ``UserAttributes``. average: float32 [A], for the fields that are not given.

    Raises:
        InputError: for a field that the names lack, or a text where they have ranges.
    """
    fields = np.array([name.split(": ", 1)[0] for name in names], dtype=object)
    unknown = sorted(set(values) - set(fields))
    if unknown:
        there = ", ".join(sorted(set(fields))) or "none: the model was trained without any"
        raise InputError(
            f"attributes of users that the model was trained with ({there})",
            ", ".join(map(repr, unknown))[:200],
            "leave out the others",
        )
    encoded = average.copy()
    for field, value in values.items():
        own = np.flatnonzero(fields == field)
        labels = [names[position].split(": ", 1)[1] for position in own.tolist()]
        encoded[own] = 0.0
        matching = _matching(labels, value, field)
        if matching is not None:
            encoded[own[matching]] = 1.0
    return encoded


def _matching(labels: Sequence[str], value: str | float, field: str) -> int | None:
    """The position of the label that a value belongs to.

    A number is what it says however it is written: 24, 24.0 and "24" are one, in JSON as in tables.
    """
    text = str(value).strip()
    if text in labels:
        return labels.index(text)
    number = _number(text)
    ranges = [_RANGE.fullmatch(label) for label in labels]
    bounds = [(float(one[1]), float(one[2])) for one in ranges if one is not None]
    if len(bounds) < len(labels):  # categories
        numbers = [_number(label) for label in labels]
        return numbers.index(number) if number is not None and number in numbers else None
    if number is None:
        raise InputError(f"a number as {field!r}", repr(value)[:200], "correct it")
    distances = [max(low - number, number - high, 0.0) for low, high in bounds]
    return int(np.argmin(distances))


def _number(text: str) -> float | None:
    """What a text says as a number, JSON's booleans included; None where it is a name ("007")."""
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if not re.fullmatch(NUMBER, text, re.ASCII) or re.match(r"[+-]?0\d", text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None
