"""The user's own CSV or Parquet files, or frames: validated by schema, cleaned by documented rules.

Broken input (a missing column, a row without an item, a time that is none) is refused. What real
data always has is mended, and counted in the log:

- a (user, item) pair that repeats keeps its latest row (the last in the file among equal times),
  which then counts as much as all its rows do (see ``recsys.data.strengths``) and knows the types
  of all of them (see ``recsys.data.type_sets``);
- a pair whose latest row is of type ``dismiss`` is kept out of the user's lists, and not learned
  from; where a later row has taken a dismissal back, that row is dropped;
- a row that ``positive`` rules out is dropped: it is neither learned from nor held out;
- an item or user that repeats in its table keeps its first row;
- an interaction with an item that the items table lacks is dropped; if all are, it is an error;
- an item without a title gets its id as title, so that it has some text; where no item has a title
  or a description, there is no text at all, see ``Dataset.has_text``;
- without a column of times there is no order: only a split that needs none can be made.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from recsys.data.cells import MISSING, MISSING_NUMBER, are_integers, are_numbers, ids_of_floats
from recsys.data.columns import INTERACTIONS, ITEMS, USERS, Columns, read_columns, validate
from recsys.data.interactions import clean_interactions
from recsys.data.positives import Condition
from recsys.data.strengths import Counting, checked_event_weights, checked_half_life
from recsys.data.tables import TextTable
from recsys.data.times import EARLIEST, LATEST, parse_timestamps
from recsys.errors import InputError
from recsys.schema import (
    DESCRIPTION,
    GENRE_SEPARATOR,
    GENRES,
    ITEM_ID,
    TIMESTAMP,
    TITLE,
    USER_ID,
    YEAR,
    Dataset,
)

_FEW_USERS = 0.5
_SECONDS_PER_DAY = 86_400

logger = logging.getLogger(__name__)

__all__ = ["EARLIEST", "LATEST", "load", "parse_timestamps"]


def load(
    interactions: object,
    items: object,
    users: object = None,
    columns: Columns | None = None,
    genre_separator: str = GENRE_SEPARATOR,
    name: str = "files",
    separator: str | None = None,
    event_weights: Mapping[str, float] | None = None,
    positive: str | None = None,
    count_repeats: bool = False,
    half_life_days: float | None = None,
) -> Dataset:
    """Read, validate and clean tables of interactions, items and (optionally) users.

    Ids are integers when each id of that kind, in all tables, is written as one ("7", not "007"),
    and no Parquet file or frame holds them as text; else all are strings. Where all ids of a table
    are floats ("7.0"), they are the integers that they were. Blanks around a value are no part of
    it. Times are unix seconds (fractions are cut) or ISO 8601 (UTC where no zone is given).

    Args:
        interactions, items, users: each the path of a file (see ``read_table``) or a frame (see
            ``recsys.data.frames.read_frame``). items: None where there is no such table: the items
            are those of the interactions.
        columns: for ``interactions``, ``items`` and ``users``: our column name -> the table's.
            A name that is left out is its own. Optional columns (rating, description, genres,
            timestamp, year, release_date) may be missing, unless they are mapped to another name;
            one that is mapped to None is not read.
        genre_separator: what separates several genres in one field.
        separator: as of ``read_table``.
        event_weights: what an event of each type counts; rows without a type count 1.
        positive: which rows count at all, e.g. "rating >= 4": see ``Condition``.
        count_repeats: whether a pair that repeats counts as its rows do also where there are no
            weights. half_life_days: after which a row counts half; pairs count as their rows do
            then, too. None: rows do not fade.

    Raises:
        InputError: naming the table, the column, the rule and the first offending rows.
    """
    columns = columns or {}
    weights = checked_event_weights(event_weights)
    condition = None if positive is None else Condition.parse(positive)
    half_life = checked_half_life(half_life_days)
    has_items, has_users = (_is_given(table) for table in (items, users))
    events = read_columns(interactions, "interactions", INTERACTIONS, columns, separator)
    catalog = (
        read_columns(items, "items", ITEMS, columns, separator) if has_items else _items_of(events)
    )
    people = read_columns(users, "users", USERS, columns, separator) if has_users else None

    times = _times(events)
    validate(catalog, ITEMS)
    if people is not None:
        validate(people, USERS)

    tables = [table for table in (events, catalog, people) if table is not None]
    for column in (USER_ID, ITEM_ID):
        _convert_ids([table for table in tables if column in table.frame], column)
    has_text = _has_text(catalog)
    item_frame = _clean_items(catalog, genre_separator, has_text)
    if times is not None:
        events.frame[TIMESTAMP] = times.astype("int64")
    counting = Counting(weights, count_repeats, half_life)
    event_frame, dismissed = clean_interactions(events, item_frame, condition, counting)
    user_frame = None
    if people is not None:
        user_frame = _clean_users(people)
        _compare_users(people.origin, user_frame, event_frame)
    return Dataset(
        name,
        event_frame,
        item_frame,
        user_frame,
        weights,
        count_repeats,
        half_life,
        dismissed,
        has_text,
    )


def _is_given(table: object) -> bool:
    """Whether there is a table: neither None nor an empty name."""
    return table is not None and not (isinstance(table, str) and not table)


def _times(events: TextTable) -> "pd.Series[int] | None":
    """Unix seconds of the events, checked as the other columns are; None where there are none."""
    if TIMESTAMP not in events.frame:
        validate(events, INTERACTIONS)
        logger.warning(
            "%s: no column of times, found %s: what sittings, recency and trends tell is lost, and "
            "data.split must be random or ua",
            *(events.origin, events.names),
        )
        return None
    raw = events.frame[TIMESTAMP]
    times = parse_timestamps(raw)
    validate(replace(events, frame=events.frame.assign(timestamp=times)), INTERACTIONS, raw)
    future = (times > int(time.time()) + _SECONDS_PER_DAY).to_numpy(bool)
    if future.any():
        first = int(future.argmax())
        logger.warning(
            "%s: %d of %d interactions lie in the future, first %s: %s; a clock that was wrong "
            "makes them the latest of all",
            *(events.origin, future.sum(), len(times), events.place(first), raw.iloc[first]),
        )
    return times


def _convert_ids(tables: list[TextTable], column: str) -> None:
    """Make the column int64 in all tables if each id is written as an integer would be."""
    for table in tables:
        table.frame[column] = ids_of_floats(table.frame[column], f"{column!r} of {table.origin}")
    if any(column in table.typed for table in tables):
        return
    if all(are_integers(table.frame[column]) for table in tables):
        for table in tables:
            table.frame[column] = table.frame[column].astype("int64")


def _items_of(events: TextTable) -> TextTable:
    """A table of the items that have interactions, for want of another; none has a title."""
    ids = events.frame[[ITEM_ID]].drop_duplicates(ignore_index=True)
    return replace(events, frame=ids, typed=events.typed & {ITEM_ID})


def _has_text(items: TextTable) -> bool:
    texts = [items.frame[name] for name in (TITLE, DESCRIPTION) if name in items.frame]
    return any((text != "").any() for text in texts)


def _first_of(table: TextTable, key: str, what: str) -> pd.DataFrame:
    frame = table.frame
    repeated = frame.duplicated(key)
    if repeated.any():
        logger.warning(
            "%s: %d repeated %s; the first of each is kept", table.origin, repeated.sum(), what
        )
    return frame[~repeated].reset_index(drop=True)


def _clean_users(table: TextTable) -> pd.DataFrame:
    """Attributes that are numbers in each row that has any become such."""
    users = _first_of(table, USER_ID, "users")
    for column in users.columns.drop(USER_ID):
        text = users[column].str.strip()
        known = text[~text.isin(MISSING_NUMBER)]
        # A leading zero tells that these are names, as of postal districts.
        if are_numbers(known).all() and not known.str.match(r"[+-]?0\d").any():
            numbers = pd.to_numeric(known.reindex(text.index))
            users[column] = numbers.mask(np.isinf(numbers)).convert_dtypes()
            continue
        users[column] = text.mask(text.isin(MISSING))
        if (
            known.str.fullmatch(r"[+-]?\d+(,\d+)?").all()
            and known.str.contains(",", regex=False).any()
        ):
            logger.warning(
                "%s: numbers of column %r have decimal commas, so that they are read as text; "
                "write points",
                *(table.origin, column),
            )
    return users


def _compare_users(origin: str, users: pd.DataFrame, interactions: pd.DataFrame) -> None:
    found = pd.Series(interactions[USER_ID].unique())
    known = found.isin(users[USER_ID])
    if not known.any():
        raise InputError(
            f"users with interactions in the users table {origin}",
            f"none of them: first {found.head(3).tolist()}, but the users table has "
            f"{users[USER_ID].head(3).tolist()}",
            "check that both tables write user ids alike, or leave out data.users",
        )
    if known.mean() < _FEW_USERS:
        logger.warning(
            "%s: the users table has %d of %d users with interactions, first without a row %s",
            *(origin, known.sum(), len(found), found[~known].head(3).tolist()),
        )


def _clean_items(table: TextTable, genre_separator: str, has_text: bool) -> pd.DataFrame:
    items = _first_of(table, ITEM_ID, "items")
    if TITLE not in items:
        items.insert(1, TITLE, "")
    untitled = items[TITLE] == ""
    if not has_text:
        logger.warning(
            "%s: no item has a title or a description, columns %s: texts are left out (text=none), "
            "and ids stand for titles; data.columns.items.title=… names another column",
            *(table.origin, table.names),
        )
    elif untitled.any():
        logger.warning(
            "%s: %d of %d items have no title; their id stands for it",
            *(table.origin, untitled.sum(), len(items)),
        )
    items[TITLE] = items[TITLE].mask(untitled, items[ITEM_ID].astype("str"))
    if GENRES in items:
        genres = items[GENRES].str.replace(genre_separator, GENRE_SEPARATOR, regex=False)
        items[GENRES] = genres.str.replace(r"\s*\|\s*", GENRE_SEPARATOR, regex=True)
    if YEAR in items:
        items[YEAR] = pd.to_numeric(items[YEAR].mask(items[YEAR] == "")).astype("Int64")
    return items
