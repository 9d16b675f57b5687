"""User attributes as models see them: one-hot categories and ranges of numbers."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.vocabulary import Vocabulary
from recsys.schema import USER_ID

NUM_RANGES = 7
"""Numbers with more distinct values than this are cut into about as many equally full ranges."""
MIN_SHARE = 0.01
MIN_USERS = 5
"""A category of fewer users (a postcode, a name) says nothing that generalises; it is left out."""


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


def _labels(values: "pd.Series[str]") -> "pd.Series[str]":
    """Each user's category or range, as text; missing values stay missing."""
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if number and values.nunique() > NUM_RANGES:
        ranges = pd.qcut(values, NUM_RANGES, labels=False, duplicates="drop")
        ends = values.groupby(ranges).agg(["min", "max"])
        texts = ends["min"].map("{:g}".format) + " to " + ends["max"].map("{:g}".format)
        return ranges.map(texts).astype("string")
    return values.astype("string")
