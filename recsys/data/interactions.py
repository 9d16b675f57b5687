"""The user's own rows of interactions, cleaned by the rules of ``recsys.data.files``."""

import logging

import pandas as pd

from recsys.data.dismissals import without_dismissed
from recsys.data.positives import Condition
from recsys.data.strengths import Counting
from recsys.data.tables import TextTable
from recsys.data.type_sets import with_all_types
from recsys.errors import InputError
from recsys.schema import ITEM_ID, RATING, TIMESTAMP, USER_ID, WEIGHT

logger = logging.getLogger(__name__)


def clean_interactions(
    table: TextTable,
    items: pd.DataFrame,
    positive: Condition | None,
    counting: Counting,
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The interactions, and the pairs that were dismissed last, as in ``Dataset``.

    Args:
        table: validated; its frame is changed. items: of the data set. positive: which rows count
            at all; None: all.

    Raises:
        InputError: when no row names an item, or is a positive; on types, weights or times that
            ``counting`` lacks.
    """
    events = table.frame
    for column in (RATING, WEIGHT):
        if column in events:
            told = events[column].mask(events[column] == "")
            events[column] = pd.to_numeric(told).astype("float64")
    if WEIGHT in events:
        events[WEIGHT] = events[WEIGHT].fillna(1.0)
    known = events[ITEM_ID].isin(items[ITEM_ID])
    if not known.all():
        unknown = events.loc[~known, ITEM_ID].unique()[:3].tolist()
        if not known.any():
            raise InputError(
                f"items of {table.origin} in the items table",
                f"none of them: first {unknown}, but the items table has "
                f"{items[ITEM_ID].head(3).tolist()}",
                "check that both tables write item ids alike and that data.columns is right",
            )
        logger.warning(
            "%s: %d of %d interactions (%.1f%%) name items that the items table lacks, first %s; "
            "they are dropped",
            *(table.origin, (~known).sum(), len(events), 100 * (~known).mean(), unknown),
        )
    events, dismissed = without_dismissed(events[known].reset_index(drop=True))
    if dismissed is not None:
        logger.info(
            "%s: %d pairs of user and item were dismissed last: they are not learned from, and not "
            "recommended",
            *(table.origin, len(dismissed)),
        )
    if positive is not None:
        events = _positives(table, events, positive)
    events = with_all_types(events, str(table.origin))
    in_time = events.sort_values(TIMESTAMP, kind="stable") if TIMESTAMP in events else events
    latest = in_time.drop_duplicates([USER_ID, ITEM_ID], keep="last").index.sort_values()
    if len(latest) < len(events):
        logger.warning(
            "%s: %d of %d interactions repeat a user and item; the latest of each is kept",
            *(table.origin, len(events) - len(latest), len(events)),
        )
    events = counting.pairs(events, in_time.index.to_numpy(), str(table.origin))
    return events.loc[latest].reset_index(drop=True), dismissed


def _positives(table: TextTable, events: pd.DataFrame, positive: Condition) -> pd.DataFrame:
    if positive.column not in events:
        raise InputError(
            f"a column {positive.column!r} in {table.origin}, for data.positive={positive.text!r}",
            f"columns {table.names}"[:500],
            f"map data.columns.interactions.{positive.column}, or leave out data.positive",
        )
    holds = positive.holds(events)
    if not holds.any():
        raise InputError(
            f"interactions with {positive.text}",
            f"none among {len(events):,} of {table.origin}",
            "correct data.positive",
        )
    logger.info(
        "%s: %d of %d interactions (%.1f%%) are positive (%s); the others are left out",
        *(table.origin, holds.sum(), len(events), 100 * holds.mean(), positive.text),
    )
    return events[holds].reset_index(drop=True)
