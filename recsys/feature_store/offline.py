"""Features of past moments, for training: what was known right before each row."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from recsys.feature_store.definitions import ITEM_FEATURES, USER_FEATURES, Feature, computed
from recsys.feature_store.grouped import GroupedEvents
from recsys.schema import ITEM_ID, RATING, TIMESTAMP, USER_ID


def offline_features(
    events: pd.DataFrame,
    rows: pd.DataFrame,
    users: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The features of each row's user and item as of its time.

    Args:
        events: ``user_id, item_id, timestamp`` (unix seconds) and perhaps ``rating``. rows: the
            same columns without the rating, e.g. the training rows; any others are kept.
        users, items: attributes, one row per id, which are joined as they are.

    Returns:
        ``rows`` with columns ``user_<feature>`` and ``item_<feature>`` (float64; NaN where there is
        no basis) and the attributes, whose columns start with ``user_`` and ``item_``, too.
    """
    found = rows.reset_index(drop=True).copy()
    for kind, column, features, attributes in (
        ("user", USER_ID, USER_FEATURES, users),
        ("item", ITEM_ID, ITEM_FEATURES, items),
    ):
        for name, values in _of(events, rows, column, features).items():
            found[f"{kind}_{name}"] = values
        if attributes is not None:
            more = attributes.set_index(column).add_prefix(f"{kind}_")
            found = found.join(more, on=column)
    return found


def _of(
    events: pd.DataFrame, rows: pd.DataFrame, column: str, features: Sequence[Feature]
) -> dict[str, np.ndarray]:
    known = pd.Index(events[column].unique())
    entity = known.get_indexer(events[column])
    times = events[TIMESTAMP].to_numpy(np.int64)
    values = events[RATING].to_numpy(np.float64) if RATING in events else None
    # One more, without events, for those that the events lack.
    grouped = GroupedEvents.from_arrays(entity.astype(np.int64), times, values, len(known) + 1)
    wanted = known.get_indexer(rows[column]).astype(np.int64)
    wanted[wanted < 0] = len(known)
    return computed(features, grouped, wanted, rows[TIMESTAMP].to_numpy(np.int64))
