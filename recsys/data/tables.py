"""CSV, TSV and Parquet as columns of text, with the place of each row for error messages.

The one reader of all files that people give: for training, scoring in bulk, and features.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from recsys.data.delimited import SEPARATORS, Delimited
from recsys.errors import InputError

_PREFERRED = {".csv": ",", ".txt": ",", ".lst": ",", ".tsv": "\t", ".tab": "\t"}
_PARQUET = (".parquet", ".pq", ".parq")
_OTHERS = {
    b"PK\x03\x04": "an Excel workbook or a zip",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"ARROW1": "an Arrow file",
    b"ORC": "an ORC file",
}
FILE_SUFFIXES = (
    *(*_PREFERRED, *_PARQUET, ".gz", ".dat", ".json", ".jsonl", ".ndjson", ".xml"),
    *(".xls", ".xlsx", ".ods", ".zip", ".bz2", ".xz", ".zst", ".feather", ".arrow", ".orc"),
    *(".pkl", ".pickle", ".avro", ".db", ".sqlite"),
)
"""What ends in one of these is meant as a file, of a kind that can be read or not."""


@dataclass(frozen=True)
class TextTable:
    """A table's columns, all as ``str``; a missing value is "". Row ``r`` is row ``r`` of it.

    Text is what reading decides nothing about: "007" and "7" stay apart until the caller knows
    what the column means.

    origin: what errors call the table: a file's path, or what a frame holds. names: of all columns
    that it has. typed: those of which it says itself that they hold text, as Parquet does. place:
    where a row (from 0) stands: a line of a text file, a row (from 1) of a Parquet.
    """

    origin: str
    frame: pd.DataFrame
    names: list[str]
    typed: frozenset[str]
    place: Callable[[int], str]


def read_table(
    path: str | Path,
    what: str,
    wanted: Collection[str] | None = None,
    separator: str | None = None,
) -> TextTable:
    """Read a .csv or .tsv (UTF-8 or UTF-16, with a header line, perhaps .gz) or .parquet file.

    Args:
        what: what the file is to the user, e.g. ``data.interactions``, for error messages.
        wanted: names of columns; others are left out. None reads all.
        separator: between the fields of a text: a character or a name of ``SEPARATORS``. None
            takes the one that its header shows.

    Raises:
        InputError: when the file is missing, empty, of another kind, or has a malformed row.
    """
    path = Path(path)
    start = _first_bytes(path, what)
    if separator is not None:
        separator = SEPARATORS.get(separator, separator).replace("\\t", "\t")
        if len(separator) != 1 or not separator.isascii() or separator in '"\r\n':
            raise InputError(
                f"data.separator to be one ASCII character or one of {', '.join(SEPARATORS)}",
                repr(separator),
                "correct it, or leave it out where the header shows it",
            )
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if start.startswith(b"PAR1") or suffix in _PARQUET:
        table = _read_parquet(path, wanted)
    elif suffix in _PREFERRED or separator is not None:
        option = "data.separator" if what.startswith("data.") else None
        text = Delimited.open(path, _PREFERRED.get(suffix, ","), separator, option)
        table = TextTable(
            str(path),
            text.frame(wanted),
            [name for name in text.names if name],
            frozenset(),
            lambda row: f"line {text.line_of(row):,}",
        )
    else:
        raise InputError(
            f"{what} to end in .csv, .tsv or .parquet", str(path), "convert or rename the file"
        )
    if table.frame.empty and len(table.frame.columns):
        raise InputError(f"rows in {path}", "none", "check how the file was written")
    return table


def text_table(
    origin: str,
    names: list[str],
    columns: Iterable[tuple[str, pa.ChunkedArray]],
    place: Callable[[int], str],
) -> TextTable:
    """A table of columns that have types, as those of Parquet and of frames.

    Args:
        names: of all columns that there are. columns: those to read. place: as of ``TextTable``.

    Raises:
        InputError: when a name repeats, or a column holds neither text nor numbers.
    """
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            f"each column of {origin} to have a name of its own", f"repeated: {repeated}", "rename"
        )
    text: dict[str, pd.Series[str]] = {}
    typed = set()
    for name, column in columns:
        text[name.strip()] = _as_text(origin, name, column)
        if _is_text(column.type):
            typed.add(name.strip())
    return TextTable(origin, pd.DataFrame(text), names, frozenset(typed), place)


def _first_bytes(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
    except (OSError, ValueError) as error:
        state = "a folder" if path.is_dir() else "no such file"
        if path.exists() and not path.is_dir():
            state = str(getattr(error, "strerror", error)).lower()
        raise InputError(f"a file at {path}", state, f"correct {what}") from error
    for magic, kind in _OTHERS.items():
        if start.startswith(magic):
            raise InputError(
                f"{what} to be CSV, TSV or Parquet",
                f"{kind} at {path}",
                "unpack it, or export it as CSV in UTF-8",
            )
    return start


def _read_parquet(path: Path, wanted: Collection[str] | None) -> TextTable:
    try:
        with pa.parquet.ParquetFile(path) as file:
            # The numbers of rows that pandas keeps beside a frame are no column of it.
            columns = file.schema_arrow.names
            stored = [name for name in columns if not name.startswith("__index_level_")]
            names = [name.strip() for name in stored]
            chosen = [name for name in stored if wanted is None or name.strip() in wanted]
            table = file.read(columns=chosen)
            read = zip(table.column_names, table.columns, strict=True)
            return text_table(str(path), names, read, lambda row: f"row {row + 1:,}")
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} to be Parquet", " ".join(str(error).split())[:200], "write it again"
        ) from error


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or _is_binary(kind)
    )


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _as_text(origin: str, name: str, column: pa.ChunkedArray) -> "pd.Series[str]":
    """Values as they would stand in a CSV: 12.0 as "12", times as ISO 8601, lists joined by "|"."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_timestamp(kind):
        utc = column.cast(pa.timestamp("us", "UTC"), safe=False)
        column = pc.strftime(utc, format="%Y-%m-%dT%H:%M:%SZ")
    elif pa.types.is_boolean(kind):
        column = pc.if_else(column, "True", "False")
    elif pa.types.is_floating(kind):
        values = column.to_pandas()
        whole = values.notna() & (values % 1 == 0) & (values.abs() < 2**53)
        text = values.astype("str")
        text = text.mask(whole, values.where(whole, 0).astype("int64").astype("str"))
        known: pd.Series[str] = text.mask(values.isna(), "")
        return known
    elif _is_binary(kind) or not (
        pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType)
    ):
        try:
            # Spark, Hive and others write text as bytes.
            column = column.cast(pa.large_string())
        except pa.ArrowInvalid as error:
            raise InputError(
                f"text or numbers in column {name!r} of {origin}",
                f"{kind} that is no UTF-8",
                "write it as text",
            ) from error
    else:
        values = ["" if one is None else _joined(one) for one in column.to_pylist()]
        return pd.Series(values, dtype="str")
    read: pd.Series[str] = column.cast(pa.large_string()).to_pandas().astype("str").fillna("")
    return read


def _joined(value: object) -> str:
    if isinstance(value, list | tuple):
        return "|".join(one.decode() if isinstance(one, bytes) else str(one) for one in value)
    return str(value)
