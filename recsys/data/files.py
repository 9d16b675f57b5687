"""The user's own CSV or Parquet files: validated by schema, cleaned by documented rules.

Broken input (a missing column, a row without an item, a time that is none) is refused. What real
data always has is mended, and counted in the log:

- a (user, item) pair that repeats keeps its latest row (the last in the file among equal times);
- an item or user that repeats in its table keeps its first row;
- an interaction with an item that the items table lacks is dropped; if all are, it is an error;
- an item without a title gets its id as title, so that it has some text.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pandera.pandas as pa
import pyarrow
import pyarrow.parquet

from recsys.data.tables import TextTable, is_parquet, read_table
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

_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_TIME_RULE = "unix seconds or ISO 8601, from 1971 to 2100"

logger = logging.getLogger(__name__)


def _matches(pattern: str, rule: str) -> pa.Check:
    return pa.Check(lambda text: text.str.fullmatch(pattern), error=rule)


def _are_dates(text: "pd.Series[str]") -> "pd.Series[bool]":
    return (text == "") | pd.to_datetime(text, format="%Y-%m-%d", errors="coerce").notna()


_ID = pa.Column("str", pa.Check(lambda text: text != "", error="an id in each row"))
_TEXT = pa.Column("str", required=False)

INTERACTIONS = pa.DataFrameSchema(
    {
        USER_ID: _ID,
        ITEM_ID: _ID,
        TIMESTAMP: pa.Column(
            "Int64", pa.Check.in_range(EARLIEST, LATEST, error=_TIME_RULE), nullable=False
        ),
        RATING: pa.Column("str", _matches(f"({_NUMBER})?", "a number or empty"), required=False),
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
) -> Dataset:
    """Read, validate and clean tables of interactions, items and (optionally) users.

    Ids are integers when each id of that kind, in all files, is written as one ("7", not "007");
    else all of them are strings. What Parquet files say is text stays text, as in an export of
    string ids. Blanks around a value are no part of it. Times are unix seconds
    (fractions are cut) or ISO 8601 (UTC where no zone is given).

    Args:
        columns: for ``interactions``, ``items`` and ``users``: our column name -> the file's.
            A name that is left out is its own. Optional columns (rating, description, genres,
            year, release_date) may be missing, unless they are mapped to another name.
        genre_separator: what separates several genres in one field.

    Raises:
        InputError: naming the file, the column, the rule and the first offending rows.
    """
    columns = columns or {}
    events = _mapped(read_table(interactions, "data.interactions"), INTERACTIONS, columns)
    catalog = _mapped(read_table(items, "data.items"), ITEMS, columns)
    people = _mapped(read_table(users, "data.users"), USERS, columns) if users else None

    raw_times = events.frame[TIMESTAMP]
    times = parse_timestamps(raw_times)
    _validate(TextTable(events.path, events.frame.assign(timestamp=times)), INTERACTIONS, raw_times)
    _validate(catalog, ITEMS)
    if people is not None:
        _validate(people, USERS)

    frames = [table.frame for table in (events, catalog, people) if table is not None]
    paths = {"interactions": interactions, "items": items, "users": users}
    for column in (USER_ID, ITEM_ID):
        if not _is_declared_text(paths, columns, column):
            _convert_ids([frame for frame in frames if column in frame], column)
    item_frame = _clean_items(catalog, genre_separator)
    events.frame[TIMESTAMP] = times.astype("int64")
    event_frame = _clean_interactions(events, item_frame)
    user_frame = _clean_users(people) if people is not None else None
    return Dataset(name, event_frame, item_frame, user_frame)


def parse_timestamps(text: "pd.Series[str]") -> "pd.Series[int]":
    """Unix seconds (Int64) of a column in seconds or in ISO 8601, as most of its rows are.

    A value of the other kind, or of neither, is missing in the result.
    """
    numeric = text.str.fullmatch(_NUMBER).astype(bool)
    if numeric.mean() >= 0.5:
        seconds = pd.to_numeric(text.where(numeric), errors="coerce").astype("Float64")
        return (seconds.where(seconds.abs() < 2**62) // 1).astype("Int64")
    times = pd.to_datetime(text.where(~numeric), format="ISO8601", utc=True, errors="coerce")
    since = times - pd.Timestamp(0, tz="UTC")
    return (since // pd.Timedelta(seconds=1)).astype("Int64")


def _mapped(table: TextTable, schema: pa.DataFrameSchema, columns: Columns) -> TextTable:
    """The table with the schema's column names; other columns are kept for users only."""
    group = {id(INTERACTIONS): "interactions", id(ITEMS): "items", id(USERS): "users"}[id(schema)]
    found = list(table.frame.columns)
    chosen: dict[str, str] = {}
    for ours, column in schema.columns.items():
        theirs = columns.get(group, {}).get(ours, ours)
        if theirs in table.frame:
            chosen[ours] = theirs
        elif column.required or theirs not in (None, ours):
            raise InputError(
                f"column {theirs!r} ({ours}) in {table.path}",
                f"columns {found}",
                f"set data.columns.{group}.{ours} to the right name",
            )
    frame = pd.DataFrame({ours: table.frame[theirs].str.strip() for ours, theirs in chosen.items()})
    if schema is USERS:
        others = [column for column in found if column not in {*chosen, *chosen.values()}]
        frame = frame.join(table.frame[others])
    return TextTable(table.path, frame)


def _validate(
    table: TextTable, schema: pa.DataFrameSchema, raw_times: "pd.Series[str] | None" = None
) -> None:
    try:
        schema.validate(table.frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        raise _explain(table, errors.failure_cases, raw_times) from errors


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
    first = ", ".join(f"{table.place(row)}: {values.iloc[row]!r}" for row in rows[:3])
    remedy = "mend or remove these rows"
    if column == TIMESTAMP:
        seconds = table.frame[TIMESTAMP].astype("Float64")
        if (seconds / 1000).between(EARLIEST, LATEST).sum() > 0.5 * seconds.count():
            remedy = "these look like milliseconds: divide them by 1000"
        elif len(rows) == len(table.frame):
            remedy = "convert the column, or map another one by data.columns.interactions.timestamp"
    others = f" (also broken: {', '.join(broken[1:])})" if len(broken) > 1 else ""
    return InputError(
        f"column {column!r} of {table.path} to hold {rule}",
        f"{len(rows):,} of {len(table.frame):,} rows that do not, {first}{others}",
        remedy,
    )


def _is_declared_text(
    paths: Mapping[str, str | Path | None], columns: Columns, column: str
) -> bool:
    """Whether all files that have types, of which there are some, have text in a column."""
    declared = []
    for group, path in paths.items():
        if path is not None and is_parquet(path):
            schema = pyarrow.parquet.read_schema(path)
            name = columns.get(group, {}).get(column) or column
            if name in schema.names:
                declared.append(schema.field(name).type)
    return bool(declared) and all(
        pyarrow.types.is_string(one) or pyarrow.types.is_large_string(one) for one in declared
    )


def _convert_ids(frames: list[pd.DataFrame], column: str) -> None:
    """Make the column int64 in all frames if each id is written as an integer would be."""
    pattern = r"0|-?[1-9][0-9]{0,17}"
    if all(frame[column].str.fullmatch(pattern).all() for frame in frames):
        for frame in frames:
            frame[column] = frame[column].astype("int64")


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
        text = text.mask(text == "")
        # A leading zero tells that these are names, as of postal districts.
        names = ~text.dropna().str.fullmatch(_NUMBER) | text.dropna().str.match(r"0\d")
        users[column] = text if names.any() else pd.to_numeric(text).convert_dtypes()
    return users


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
    in_time = events.sort_values(TIMESTAMP, kind="stable")
    latest = in_time.drop_duplicates([USER_ID, ITEM_ID], keep="last").index.sort_values()
    if len(latest) < len(events):
        logger.warning(
            "%s: %d of %d interactions repeat a user and item; the latest of each is kept",
            *(table.path, len(events) - len(latest), len(events)),
        )
    return events.loc[latest].reset_index(drop=True)
