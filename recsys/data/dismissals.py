"""Rows by which a user has dismissed an item: no taste, and no item of the user's lists."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.histories import Histories
from recsys.data.splits import TEMPORAL
from recsys.data.vocabulary import Vocabulary
from recsys.schema import DISMISS, ITEM_ID, TIMESTAMP, TYPE, USER_ID, Split

_PAIR = [USER_ID, ITEM_ID]


def without_dismissed(events: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The rows that tell a taste, and the pairs of user and item that were dismissed last.

    Of the latter no row tells a taste, whatever was said before; a later row takes a dismissal
    back. Without times, rows are in the order in which things happened.

    Args:
        events: with a RangeIndex.

    Returns:
        The rows, with a RangeIndex; and ``user_id, item_id`` (and ``timestamp``, of the dismissal),
        or None where no row is a dismissal.
    """
    if TYPE not in events or not (events[TYPE] == DISMISS).any():
        return events, None
    in_time = events.sort_values(TIMESTAMP, kind="stable") if TIMESTAMP in events else events
    last = in_time.drop_duplicates(_PAIR, keep="last")
    gone = last.loc[last[TYPE] == DISMISS, [name for name in (*_PAIR, TIMESTAMP) if name in last]]
    is_gone = pd.MultiIndex.from_frame(events[_PAIR]).isin(pd.MultiIndex.from_frame(gone[_PAIR]))
    kept = events[~is_gone & (events[TYPE] != DISMISS).to_numpy(bool)]
    return kept.reset_index(drop=True), gone.sort_index().reset_index(drop=True)


def encoded(
    dismissed: pd.DataFrame | None, split: Split, users: Vocabulary, items: Vocabulary
) -> Histories | None:
    """The dismissals of known users and items as events; None where there are none.

    Where a split is by time, those from before a user's held-out rows: an evaluation of lists must
    not know of later ones.
    """
    if dismissed is None:
        return None
    known = (users.encode(dismissed[USER_ID]) > 0) & (items.encode(dismissed[ITEM_ID]) > 0)
    if TIMESTAMP in dismissed and split.name in TEMPORAL:
        known &= _are_before(dismissed, split)
    if not known.any():
        return None
    found = dismissed[known]
    return Histories.from_frame(found, users, items)


def _are_before(dismissed: pd.DataFrame, split: Split) -> NDArray[np.bool_]:
    """Which are from before the time from which rows of their user are held out: bool [n]."""
    times = split.test[TIMESTAMP]
    if split.name == "global_time":
        return np.asarray(dismissed[TIMESTAMP] < times.min(), bool)
    first = dismissed[USER_ID].map(times.groupby(split.test[USER_ID]).min())
    return np.asarray(first.isna() | (dismissed[TIMESTAMP] < first), bool)
