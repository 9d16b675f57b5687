"""The columns of the user's own tables: their names, what they must hold, and what breaks that."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from recsys.data.cells import MISSING, MISSING_NUMBER, NUMBER, are_ids, are_numbers
from recsys.data.frames import read_frame
from recsys.data.strengths import MAX_WEIGHT, MIN_WEIGHT, WEIGHT_RULE
from recsys.data.tables import TextTable, read_table
from recsys.data.times import EARLIEST, LATEST
from recsys.errors import InputError
from recsys.schema import (
    ALL_TYPES,
    DESCRIPTION,
    GENRES,
    ITEM_ID,
    RATING,
    RELEASE_DATE,
    TIMESTAMP,
    TITLE,
    TYPE,
    USER_ID,
    WEIGHT,
    YEAR,
)

Columns = Mapping[str, Mapping[str, str | None]]

_TIME_RULE = "unix seconds or ISO 8601, from 1971 to 2100"
_FRACTIONS = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}


def _matches(pattern: str, rule: str) -> pa.Check:
    return pa.Check(lambda text: text.str.fullmatch(pattern), error=rule)


def _are_dates(text: "pd.Series[str]") -> "pd.Series[bool]":
    return (text == "") | pd.to_datetime(text, format="%Y-%m-%d", errors="coerce").notna()


def _are_weights(text: "pd.Series[str]") -> "pd.Series[bool]":
    numbers = pd.to_numeric(text.where(are_numbers(text)), errors="coerce")
    return (text == "") | numbers.between(MIN_WEIGHT, MAX_WEIGHT)


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
        TYPE: _TEXT,
        ALL_TYPES: _TEXT,
        WEIGHT: pa.Column(
            "str",
            pa.Check(_are_weights, error=f"{WEIGHT_RULE} or empty"),
            required=False,
        ),
    }
)
ITEMS = pa.DataFrameSchema(
    {
        ITEM_ID: _ID,
        TITLE: _TEXT,
        DESCRIPTION: _TEXT,
        GENRES: _TEXT,
        YEAR: pa.Column("str", _matches(r"([1-9]\d{0,3})?", "a year or empty"), required=False),
        RELEASE_DATE: pa.Column(
            "str", pa.Check(_are_dates, error="YYYY-MM-DD or empty"), required=False
        ),
    }
)
USERS = pa.DataFrameSchema({USER_ID: _ID})


def read_columns(
    table: object,
    group: str,
    schema: pa.DataFrameSchema,
    columns: Columns,
    separator: str | None,
) -> TextTable:
    """The table with the schema's column names; other columns are kept for users only.

    Args:
        table: the path of a file, or a frame. group: whose names in ``columns`` count. separator:
            as of ``recsys.data.tables.read_table``.

    Raises:
        InputError: when the table cannot be read, or lacks a column.
    """
    theirs = {ours: columns.get(group, {}).get(ours, ours) for ours in schema.columns}
    wanted = None if schema is USERS else {name for name in theirs.values() if name}
    if isinstance(table, str | Path):
        read = read_table(table, f"data.{group}", wanted, separator)
    else:
        read = read_frame(table, group, wanted)
    chosen = {ours: name for ours, name in theirs.items() if name in read.frame}
    for ours, column in schema.columns.items():
        if ours not in chosen and (column.required or theirs[ours] not in (None, ours)):
            alone = ", and data.separator to what stands between fields"
            raise InputError(
                f"column {theirs[ours]!r} ({ours}) in {read.origin}",
                f"columns {read.names}"[:500],
                f"set data.columns.{group}.{ours} to the right name"
                + alone * (isinstance(table, str | Path) and len(read.names) == 1),
            )
    frame = pd.DataFrame({ours: read.frame[name].str.strip() for ours, name in chosen.items()})
    for column in frame.columns.difference([USER_ID, ITEM_ID, TIMESTAMP]):
        empty = MISSING_NUMBER if column in (RATING, WEIGHT, YEAR, RELEASE_DATE) else MISSING
        frame[column] = _normal(column, frame[column].mask(frame[column].isin(empty), ""))
    if schema is USERS:
        # Numbers of rows, as pandas writes them, tell nothing of a user.
        others = [
            name
            for name in map(str, read.frame)
            if name not in {*chosen, *chosen.values()} and not name.startswith("Unnamed: ")
        ]
        frame = frame.join(read.frame[others])
    typed = frozenset(ours for ours, name in chosen.items() if name in read.typed)
    return replace(read, frame=frame, typed=typed)


def _normal(column: str, text: "pd.Series[str]") -> "pd.Series[str]":
    """Years and dates in the form that the schema asks for; 0, as MySQL has it, is none."""
    if column == YEAR:
        text = text.str.replace(r"\.0*$", "", regex=True)
        return text.mask(text.str.fullmatch("0+").astype(bool), "")
    if column == RELEASE_DATE:
        text = text.str.replace(r"^(\d{4}-\d\d-\d\d)[T ][\d:.]+.*$", r"\1", regex=True)
        return text.mask(text == "0000-00-00", "")
    return text


def validate(
    table: TextTable, schema: pa.DataFrameSchema, raw_times: "pd.Series[str] | None" = None
) -> None:
    """Check all values.

    Args:
        raw_times: what the times of the table were made of.

    Raises:
        InputError: in one line about the first broken column, and where its first rows stand.
    """
    try:
        schema.validate(table.frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        raise _explain(table, errors.failure_cases, raw_times) from errors
    for column in (USER_ID, ITEM_ID):
        if column in table.typed or column not in table.frame:
            continue
        broken = table.frame[column].str.contains("\n", regex=False).to_numpy(bool)
        if broken.any():
            first = int(broken.argmax())
            raise InputError(
                f"each id of column {column!r} of {table.origin} on one line",
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
    elif column in (RATING, WEIGHT) and values.iloc[rows].str.contains(",").any():
        remedy = "write decimals with a point"
    if column == WEIGHT and remedy == "mend or remove these rows":
        remedy += ", or leave the column out: data.columns.interactions.weight=null"
    others = f" (also broken: {', '.join(broken[1:])})" if len(broken) > 1 else ""
    return InputError(
        f"column {column!r} of {table.origin} to hold {rule}",
        f"{len(rows):,} of {len(table.frame):,} rows that do not, {first}{others}",
        remedy,
    )
