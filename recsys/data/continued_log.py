"""What pairs of user and item count once events have come in after the log that was trained on."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.strengths import with_pair_strengths
from recsys.schema import ITEM_ID, TIMESTAMP, TYPE, USER_ID, WEIGHT

_PAIR = [USER_ID, ITEM_ID]


def continued(
    log: pd.DataFrame,
    later: pd.DataFrame,
    end: int,
    event_weights: Mapping[str, float] | None,
    *,
    count_repeats: bool = False,
    half_life_days: float | None = None,
) -> pd.DataFrame:
    """One row per pair: ``user_id, item_id, type, weight``, as an interactions file has them.

    Read with the same settings, a pair that has no later event counts what it counts in
    the log, and another one by its later events as well. Events that the log has count once.

    Args:
        log: ``user_id, item_id, timestamp, type, weight``, one row per pair; the weight is what the
            row counts in all, at its time. later: the same without weights, one row per event.
        end: of the log, unix seconds; what is from before and of a pair of the log is in the log.
        event_weights: None where types make no difference. Then a pair counts 1 whatever comes in,
            unless the log's own rows differ, or repeats count. count_repeats, half_life_days: as
            of ``recsys.data.files.load``.
    """
    logged = pd.MultiIndex.from_frame(log[_PAIR])
    is_new = (later[TIMESTAMP] > end) | ~pd.MultiIndex.from_frame(later[_PAIR]).isin(logged)
    later = later[is_new.to_numpy(bool)].assign(**{WEIGHT: 1.0})
    rows = pd.concat([log, later] if len(later) else [log], ignore_index=True)
    known = {**(event_weights or {}), "": 1.0}
    of_type = np.asarray(rows[TYPE].map(known).fillna(1.0), np.float64)
    is_later = np.arange(len(rows)) >= len(log)
    strengths = np.where(is_later, of_type, rows[WEIGHT].to_numpy(np.float64))
    in_time: NDArray[np.int64] = np.argsort(rows[TIMESTAMP].to_numpy(np.int64), kind="stable")
    merged = with_pair_strengths(rows, in_time, strengths, of_type, half_life_days)
    counts = count_repeats or half_life_days is not None
    if event_weights is None and not counts and (log[WEIGHT] == 1.0).all():
        merged[WEIGHT] = 1.0
    elif event_weights is not None:
        # A file's row counts its weight times its type's.
        merged[WEIGHT] /= merged[TYPE].map(known).fillna(1.0)
    return merged[[*_PAIR, TYPE, WEIGHT]].drop_duplicates(_PAIR, ignore_index=True)
