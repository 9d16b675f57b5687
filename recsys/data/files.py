"""The user's own CSV or Parquet files: validated by schema, cleaned by documented rules.

Broken input (a missing column, a row without an item, a time that is none) is refused. What real
data always has is mended, and counted in the log:

- a (user, item) pair that repeats keeps its latest row (the last in the file among equal times);
- an item or user that repeats in its table keeps its first row;
- an interaction with an item that the items table lacks is dropped; if all are, it is an error;
- an item without a title gets its id as title, so that it has some text;
- without a column of times there is no order: only a split that needs none can be made.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from recsys.data.cells import (
    MISSING,
    MISSING_NUMBER,
    NUMBER,
    are_ids,
    are_integers,
    are_numbers,
    ids_of_floats,
)
from recsys.data.tables import TextTable, read_table
from recsys.errors import InputError
from recsys.schema import (
    DESCRIPTION,
    GENRE_SEPARATOR,
    GENRES,
    ITEM_ID,
    RATING,
    RELEASE_DATE,
    TIMESTAMP,
    TITLE,
    USER_ID,
    YEAR,
    Dataset,
)

EARLIEST, LATEST = 31_536_000, 4_102_444_800
"""Times are taken for real from 1971 to 2100: a date such as 19990131, a counter or milliseconds
read as seconds fall outside."""

Columns = Mapping[str, Mapping[str, str | None]]

_FEW_USERS = 0.5
_SECONDS_PER_DAY = 86_400
_FRACTIONS = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
_TIME_RULE = "unix seconds or ISO 8601, from 1971 to 2100"

logger = logging.getLogger(__name__)


def _matches(pattern: str, rule: str) -> pa.Check:
    return pa.Check(lambda text: text.str.fullmatch(pattern), error=rule)


def _are_dates(text: "pd.Series[str]") -> "pd.Series[bool]":
    return (text == "") | pd.to_datetime(text, format="%Y-%m-%d", errors="coerce").notna()


_ID = pa.Column("str", pa.Check(are_ids, error="an id in each row"))
_TEXT = pa.Column("str", required=False)

INTERACTIONS = pa.DataFrameSchema(
    {
        USER_ID: _ID,
        ITEM_ID: _ID,
        TIMESTAMP: pa.Column(
            "Int64",
            pa.Check.in_range(EARLIEST, LATEST, error=_TIME_RULE),
            nullable=False,
            required=False,
        ),
        RATING: pa.Column("str", _matches(f"({NUMBER})?", "a number or empty"), required=False),
    }
)
ITEMS = pa.DataFrameSchema(
    {
        ITEM_ID: _ID,
        TITLE: pa.Column("str"),
        DESCRIPTION: _TEXT,
        GENRES: _TEXT,
        YEAR: pa.Column("str", _matches(r"([1-9]\d{0,3})?", "a year or empty"), required=False),
        RELEASE_DATE: pa.Column(
            "str", pa.Check(_are_dates, error="YYYY-MM-DD or empty"), required=False
        ),
    }
)
USERS = pa.DataFrameSchema({USER_ID: _ID})


def load(
    interactions: str | Path,
    items: str | Path,
    users: str | Path | None = None,
    columns: Columns | None = None,
    genre_separator: str = GENRE_SEPARATOR,
    name: str = "files",
    separator: str | None = None,
) -> Dataset:
    """Read, validate and clean tables of interactions, items and (optionally) users.

    Ids are integers when each id of that kind, in all files, is written as one ("7", not "007"),
    and no Parquet file holds them as text; else all of them are strings. Where all ids of a file
    are floats ("7.0"), they are the integers that they were. Blanks around a value are no part of
    it. Times are unix seconds (fractions are cut) or ISO 8601 (UTC where no zone is given).

    Args:
        columns: for ``interactions``, ``items`` and ``users``: our column name -> the file's.
            A name that is left out is its own. Optional columns (rating, description, genres,
            timestamp, year, release_date) may be missing, unless they are mapped to another name;
            one that is mapped to None is not read.
        genre_separator: what separates several genres in one field.
        separator: as of ``read_table``.

    Raises:
        InputError: naming the file, the column, the rule and the first offending rows.
    """
    columns = columns or {}
    events = _read(interactions, "interactions", INTERACTIONS, columns, separator)
    catalog = _read(items, "items", ITEMS, columns, separator)
    people = _read(users, "users", USERS, columns, separator) if users else None

    times = _times(events)
    _validate(catalog, ITEMS)
    if people is not None:
        _validate(people, USERS)

    tables = [table for table in (events, catalog, people) if table is not None]
    for column in (USER_ID, ITEM_ID):
        _convert_ids([table for table in tables if column in table.frame], column)
    item_frame = _clean_items(catalog, genre_separator)
    if times is not None:
        events.frame[TIMESTAMP] = times.astype("int64")
    event_frame = _clean_interactions(events, item_frame)
    user_frame = None
    if people is not None:
        user_frame = _clean_users(people)
        _compare_users(people.path, user_frame, event_frame)
    return Dataset(name, event_frame, item_frame, user_frame)


def _times(events: TextTable) -> "pd.Series[int] | None":
    """Unix seconds of the events, checked as the other columns are; None where there are none."""
    if TIMESTAMP not in events.frame:
        _validate(events, INTERACTIONS)
        logger.warning(
            "%s: no column of times, found %s: what sittings, recency and trends tell is lost, and "
            "data.split must be random or ua",
            *(events.path, events.names),
        )
        return None
    raw = events.frame[TIMESTAMP]
    times = parse_timestamps(raw)
    _validate(replace(events, frame=events.frame.assign(timestamp=times)), INTERACTIONS, raw)
    future = (times > int(time.time()) + _SECONDS_PER_DAY).to_numpy(bool)
    if future.any():
        first = int(future.argmax())
        logger.warning(
            "%s: %d of %d interactions lie in the future, first %s: %s; a clock that was wrong "
            "makes them the latest of all",
            *(events.path, future.sum(), len(times), events.place(first), raw.iloc[first]),
        )
    return times


def parse_timestamps(text: "pd.Series[str]") -> "pd.Series[int]":
    """Unix seconds (Int64) of a column in seconds or in ISO 8601, as most of its rows are.

    A value of the other kind, or of neither, is missing in the result.
    """
    numeric = are_numbers(text)
    if numeric.mean() >= 0.5:
        seconds = pd.to_numeric(text.where(numeric), errors="coerce").astype("Float64")
        return (seconds.where(seconds.abs() < 2**62) // 1).astype("Int64")
    text = text.where(~numeric).str.replace(r" ?(UTC|GMT)$", "Z", regex=True)
    times = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    since = times - pd.Timestamp(0, tz="UTC")
    return (since // pd.Timedelta(seconds=1)).astype("Int64")


def _read(
    path: str | Path,
    group: str,
    schema: pa.DataFrameSchema,
    columns: Columns,
    separator: str | None,
) -> TextTable:
    """The table with the schema's column names; other columns are kept for users only."""
    theirs = {ours: columns.get(group, {}).get(ours, ours) for ours in schema.columns}
    wanted = None if schema is USERS else {name for name in theirs.values() if name}
    table = read_table(path, f"data.{group}", wanted, separator)
    chosen = {ours: name for ours, name in theirs.items() if name in table.frame}
    for ours, column in schema.columns.items():
        if ours not in chosen and (column.required or theirs[ours] not in (None, ours)):
            alone = ", and data.separator to what stands between fields"
            raise InputError(
                f"column {theirs[ours]!r} ({ours}) in {table.path}",
                f"columns {table.names}"[:500],
                f"set data.columns.{group}.{ours} to the right name"
                + alone * (len(table.names) == 1),
            )
    frame = pd.DataFrame({ours: table.frame[name].str.strip() for ours, name in chosen.items()})
    for column in frame.columns.difference([USER_ID, ITEM_ID, TIMESTAMP]):
        empty = MISSING_NUMBER if column in (RATING, YEAR, RELEASE_DATE) else MISSING
        frame[column] = _normal(column, frame[column].mask(frame[column].isin(empty), ""))
    if schema is USERS:
        # Numbers of rows, as pandas writes them, tell nothing of a user.
        others = [
            name
            for name in map(str, table.frame)
            if name not in {*chosen, *chosen.values()} and not name.startswith("Unnamed: ")
        ]
        frame = frame.join(table.frame[others])
    typed = frozenset(ours for ours, name in chosen.items() if name in table.typed)
    return replace(table, frame=frame, typed=typed)


def _normal(column: str, text: "pd.Series[str]") -> "pd.Series[str]":
    """Years and dates in the form that the schema asks for; 0, as MySQL has it, is none."""
    if column == YEAR:
        text = text.str.replace(r"\.0*$", "", regex=True)
        return text.mask(text.str.fullmatch("0+").astype(bool), "")
    if column == RELEASE_DATE:
        text = text.str.replace(r"^(\d{4}-\d\d-\d\d)[T ][\d:.]+.*$", r"\1", regex=True)
        return text.mask(text == "0000-00-00", "")
    return text


def _validate(
    table: TextTable, schema: pa.DataFrameSchema, raw_times: "pd.Series[str] | None" = None
) -> None:
    try:
        schema.validate(table.frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        raise _explain(table, errors.failure_cases, raw_times) from errors
    for column in {USER_ID, ITEM_ID} & set(table.frame) - table.typed:
        broken = table.frame[column].str.contains("\n", regex=False).to_numpy(bool)
        if broken.any():
            first = int(broken.argmax())
            raise InputError(
                f"each id of column {column!r} of {table.path} on one line",
                f"{int(broken.sum()):,} over several, first {table.place(first)}: "
                f"{table.frame[column].iloc[first][:80]!r}",
                "mend the quotes of these rows",
            )


def _explain(
    table: TextTable, cases: pd.DataFrame, raw_times: "pd.Series[str] | None"
) -> InputError:
    """One line about the first broken column: rule, number of rows, the first three."""
    broken = list(dict.fromkeys(cases["column"]))
    column = broken[0]
    cases = cases[cases["column"] == column]
    rows = sorted({int(row) for row in cases["index"]})
    rule = _TIME_RULE if column == TIMESTAMP else str(cases["check"].iloc[0])
    values = raw_times if column == TIMESTAMP and raw_times is not None else table.frame[column]
    first = ", ".join(f"{table.place(row)}: {values.iloc[row][:80]!r}" for row in rows[:3])
    remedy = "mend or remove these rows"
    if column == TIMESTAMP:
        seconds = table.frame[TIMESTAMP].astype("Float64")
        for unit, number in _FRACTIONS.items():
            if (seconds / number).between(EARLIEST, LATEST).sum() > 0.5 * seconds.count():
                remedy = f"these look like {unit}: divide them by {number}"
                break
        else:
            if len(rows) == len(table.frame):
                remedy = (
                    "convert the column, or map another one by "
                    "data.columns.interactions.timestamp (null: there are no times)"
                )
    elif column == RATING and values.iloc[rows].str.contains(",").any():
        remedy = "write decimals with a point"
    others = f" (also broken: {', '.join(broken[1:])})" if len(broken) > 1 else ""
    return InputError(
        f"column {column!r} of {table.path} to hold {rule}",
        f"{len(rows):,} of {len(table.frame):,} rows that do not, {first}{others}",
        remedy,
    )


def _convert_ids(tables: list[TextTable], column: str) -> None:
    """Make the column int64 in all tables if each id is written as an integer would be."""
    for table in tables:
        table.frame[column] = ids_of_floats(table.frame[column], f"{column!r} of {table.path}")
    if any(column in table.typed for table in tables):
        return
    if all(are_integers(table.frame[column]) for table in tables):
        for table in tables:
            table.frame[column] = table.frame[column].astype("int64")


def _first_of(table: TextTable, key: str, what: str) -> pd.DataFrame:
    frame = table.frame
    repeated = frame.duplicated(key)
    if repeated.any():
        logger.warning(
            "%s: %d repeated %s; the first of each is kept", table.path, repeated.sum(), what
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
            users[column] = pd.to_numeric(known.reindex(text.index)).convert_dtypes()
            continue
        users[column] = text.mask(text.isin(MISSING))
        if known.str.fullmatch(r"[+-]?\d+(,\d+)?").all():
            logger.warning(
                "%s: numbers of column %r have decimal commas, so that they are read as text; "
                "write points",
                *(table.path, column),
            )
    return users


def _compare_users(path: Path, users: pd.DataFrame, interactions: pd.DataFrame) -> None:
    found = pd.Series(interactions[USER_ID].unique())
    known = found.isin(users[USER_ID])
    if not known.any():
        raise InputError(
            f"users with interactions in the users table {path}",
            f"none of them: first {found.head(3).tolist()}, but the users table has "
            f"{users[USER_ID].head(3).tolist()}",
            "check that both files write user ids alike, or leave out data.users",
        )
    if known.mean() < _FEW_USERS:
        logger.warning(
            "%s: the users table has %d of %d users with interactions, first without a row %s",
            *(path, known.sum(), len(found), found[~known].head(3).tolist()),
        )


def _clean_items(table: TextTable, genre_separator: str) -> pd.DataFrame:
    items = _first_of(table, ITEM_ID, "items")
    untitled = items[TITLE] == ""
    if untitled.any():
        logger.warning(
            "%s: %d of %d items have no title; their id stands for it",
            *(table.path, untitled.sum(), len(items)),
        )
        items[TITLE] = items[TITLE].mask(untitled, items[ITEM_ID].astype("str"))
    if GENRES in items:
        genres = items[GENRES].str.replace(genre_separator, GENRE_SEPARATOR, regex=False)
        items[GENRES] = genres.str.replace(r"\s*\|\s*", GENRE_SEPARATOR, regex=True)
    if YEAR in items:
        items[YEAR] = pd.to_numeric(items[YEAR].mask(items[YEAR] == "")).astype("Int64")
    return items


def _clean_interactions(table: TextTable, items: pd.DataFrame) -> pd.DataFrame:
    events = table.frame
    if RATING in events:
        events[RATING] = pd.to_numeric(events[RATING].mask(events[RATING] == "")).astype("float64")
    known = events[ITEM_ID].isin(items[ITEM_ID])
    if not known.all():
        unknown = events.loc[~known, ITEM_ID].unique()[:3].tolist()
        if not known.any():
            raise InputError(
                f"items of {table.path} in the items table",
                f"none of them: first {unknown}, but the items table has "
                f"{items[ITEM_ID].head(3).tolist()}",
                "check that both files write item ids alike and that data.columns is right",
            )
        logger.warning(
            "%s: %d of %d interactions (%.1f%%) name items that the items table lacks, first %s; "
            "they are dropped",
            *(table.path, (~known).sum(), len(events), 100 * (~known).mean(), unknown),
        )
    events = events[known].reset_index(drop=True)
    in_time = events.sort_values(TIMESTAMP, kind="stable") if TIMESTAMP in events else events
    latest = in_time.drop_duplicates([USER_ID, ITEM_ID], keep="last").index.sort_values()
    if len(latest) < len(events):
        logger.warning(
            "%s: %d of %d interactions repeat a user and item; the latest of each is kept",
            *(table.path, len(events) - len(latest), len(events)),
        )
    return events.loc[latest].reset_index(drop=True)
