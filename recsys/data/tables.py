"""CSV, TSV and Parquet as columns of text, with the place of each row for error messages."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from recsys.errors import InputError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class TextTable:
    """A file's columns, all as ``str``; a missing value is "". Row ``r`` is row ``r`` of the file.

    Text is what reading decides nothing about: "007" and "7" stay apart until the caller knows
    what the column means.
    """

    path: Path
    frame: pd.DataFrame

    def place(self, row: int) -> str:
        """Where row ``row`` (from 0) stands: a line of a text file, a row (from 1) of a Parquet."""
        if self.path.suffix.lower() in _PARQUET:
            return f"row {row + 1:,}"
        return f"line {_line_of(self.path, row + 1):,}"


def is_parquet(path: str | Path) -> bool:
    """Whether a file's name says so."""
    return Path(path).suffix.lower() in _PARQUET


def read_table(path: str | Path, what: str) -> TextTable:
    """Read a .csv, .tsv (UTF-8, with a header line) or .parquet file.

    Args:
        what: what the file is to the user, e.g. ``data.interactions``, for error messages.

    Raises:
        InputError: when the file is missing, empty, of another kind, or has a malformed row.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        state = "a folder" if path.is_dir() else "no such file"
        raise InputError(f"a file at {path}", state, f"correct {what}")
    if suffix in _DELIMITERS:
        frame = _read_delimited(path, _DELIMITERS[suffix])
    elif suffix in _PARQUET:
        frame = _read_parquet(path)
    else:
        raise InputError(
            f"{what} to end in .csv, .tsv or .parquet", str(path), "convert or rename the file"
        )
    if frame.empty:
        raise InputError(f"rows in {path}", "none", "check how the file was written")
    return TextTable(path, frame)


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line number of its end, fields) of each record; blank lines are none."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        for fields in reader:
            if any(field.strip() for field in fields) or len(fields) > 1:
                yield reader.line_num, fields


def _line_of(path: Path, record: int) -> int:
    """Line number of record ``record``, the header being 0. Slow, and needed in errors only."""
    found = islice(_records(path, _DELIMITERS[path.suffix.lower()]), record, record + 1)
    return next((line for line, _ in found), record + 1)


def _read_delimited(path: Path, delimiter: str) -> pd.DataFrame:
    _, header = next(_records(path, delimiter), (0, []))
    if not header:
        raise InputError(f"a header line in {path}", "an empty file", "check how it was written")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputError(
            f"each column of {path} to have a name of its own", f"repeated: {repeated}", "rename"
        )
    malformed: list[pa.csv.InvalidRow] = []

    def note(row: pa.csv.InvalidRow) -> str:
        if row.text.strip():
            malformed.append(row)
        return "skip"

    try:
        table = pa.csv.read_csv(
            path,
            # Rows are numbered on one thread only.
            read_options=pa.csv.ReadOptions(use_threads=False),
            parse_options=pa.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types={name: pa.string() for name in header}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{path} to be UTF-8 text", _one_line(error), "save it as UTF-8"
        ) from error
    if malformed:
        first = malformed[0]
        line = _line_of(path, first.number - 1)
        raise InputError(
            f"{first.expected_columns} fields in each row of {path}",
            f"{len(malformed):,} other rows, first line {line:,} with {first.actual_columns}: "
            f"{first.text[:80]!r}",
            "mend these rows (a field that holds the separator needs quotes)",
        )
    frame: pd.DataFrame = table.to_pandas().astype("str")
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pa.parquet.read_table(path).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} to be Parquet", _one_line(error), "write it again") from error
    return pd.DataFrame({str(name): _as_text(frame[name]) for name in frame})


def _as_text(column: "pd.Series[Any]") -> "pd.Series[str]":
    """Values as they would stand in a CSV: 12.0 as "12", times as ISO 8601, lists joined by "|"."""
    missing = column.isna()
    if pd.api.types.is_datetime64_any_dtype(column):
        text = pd.to_datetime(column, utc=True).dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    elif pd.api.types.is_float_dtype(column):
        whole = column.notna() & (column % 1 == 0) & (column.abs() < 2**53)
        text = column.astype("str")
        text = text.mask(whole, column.where(whole, 0).astype("int64").astype("str"))
    elif pd.api.types.is_object_dtype(column):
        text = column.map(
            lambda value: "|".join(map(str, value)) if hasattr(value, "__len__") else str(value)
        )
    else:
        text = column.astype("str")
    return text.astype("str").mask(missing, "").reset_index(drop=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
