"""Delimited text as people have it: its separator, its quotes, and its lines.

Nothing is guessed that would move a value into another row or column: what is not certain is an
error that names the line.
"""

import csv
import logging
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from recsys.data.encodings import decoded, read_text
from recsys.data.quotes import quoted_fields
from recsys.errors import InputError

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
"""Names for separators that are awkward to write on a command line."""

_GUESSED = ",;\t|"
_SAMPLE = 1 << 16
# A row must fit into one block.
_BLOCK = 64 << 20
_VISIBLE = re.compile(rb"\S")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delimited:
    """A table in text, of which it is known how its fields are told apart.

    data: as from ``read_text``. start: offset of the first row. names: of the columns, without
    blanks around them. separator: one ASCII character. quoted: whether quotes enclose fields, or
    are text. spans: start and end offsets [S, 2] of quoted fields that hold line breaks.
    option: by which users name the separator.
    """

    path: Path
    data: bytes
    start: int
    names: list[str]
    separator: str
    quoted: bool
    spans: NDArray[np.int64]
    option: str | None

    @classmethod
    def open(
        cls, path: Path, preferred: str, separator: str | None = None, option: str | None = None
    ) -> "Delimited":
        """Read and check a file.

        Args:
            preferred: the separator that the kind of file suggests; taken unless another one is
                certain. separator: the one that the user has named. option: by which that is done.

        Raises:
            InputError: naming the line of what is wrong.
        """
        data = read_text(path)
        start = len(data) - len(data.lstrip(b"\n"))
        hint = re.match(rb"sep=(.)\n", data[start : start + 6])  # as Excel writes it
        if hint:
            start += len(hint[0])
            preferred = hint[1].decode("latin-1")
        if not _VISIBLE.search(data, start):
            raise InputError(
                f"a header line in {path}", "an empty file", "check how it was written"
            )
        sample = decoded(path, data[start : data.index(b"\n", start)], "utf-8")
        separator = separator or _separator(path, sample, data[start:][:_SAMPLE], preferred, option)
        spans, fault = quoted_fields(data, start, separator)
        header_end = _end_of_record(data, start, spans)
        names = _header(path, decoded(path, data[start:header_end], "utf-8"), separator)
        table = cls(path, data, header_end + 1, names, separator, True, spans, option)
        if fault is None:
            fault = table._swallowing()
        if fault is None:
            return table
        if separator == "\t" and '"' not in sample and table._is_one_row_per_line():
            # Most programs that write tabs do not quote.
            logger.warning(
                "%s: quotes do not enclose fields (first line %s); they are read as text",
                *(path, fault[0]),
            )
            return cls(path, data, header_end + 1, names, separator, False, spans[:0], option)
        raise InputError(f"quotes that enclose fields in {path}", fault[1], _QUOTE_REMEDY)

    def frame(self, wanted: Collection[str] | None) -> pd.DataFrame:
        """The columns ``wanted`` that there are, or all, as ``str``; a missing value is "".

        Raises:
            InputError: on rows that have another number of fields, or are no UTF-8.
        """
        malformed: list[pa.csv.InvalidRow] = []

        def note(row: pa.csv.InvalidRow) -> str:
            if row.text.strip():
                malformed.append(row)
            return "skip"

        names = [name for name in self.names if name and (wanted is None or name in wanted)]
        rows = memoryview(self.data)[self.start :]
        if not names or not _VISIBLE.search(self.data, self.start):
            return pd.DataFrame({name: pd.Series(dtype="str") for name in names})
        try:
            table = pa.csv.read_csv(
                pa.BufferReader(pa.py_buffer(rows)),
                read_options=pa.csv.ReadOptions(
                    # Rows are numbered on one thread only.
                    use_threads=False,
                    block_size=min(len(rows) + 1, _BLOCK),
                    # Those without a name need one of their own here, too.
                    column_names=[name or f"\0{n}" for n, name in enumerate(self.names)],
                ),
                parse_options=pa.csv.ParseOptions(
                    delimiter=self.separator,
                    quote_char='"' if self.quoted else False,
                    newlines_in_values=len(self.spans) > 0,
                    invalid_row_handler=note,
                ),
                convert_options=pa.csv.ConvertOptions(
                    include_columns=names,
                    column_types={name: pa.string() for name in names},
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as error:
            decoded(self.path, self.data, "utf-8")
            raise InputError(
                f"rows of at most {_BLOCK >> 20} MiB in {self.path}",
                " ".join(str(error).split())[:200],
                "check how it was written, or give Parquet",
            ) from error
        if malformed:
            raise self._malformed(malformed)
        frame: pd.DataFrame = table.to_pandas().astype("str")
        return frame

    def line_of(self, row: int) -> int:
        """The line in which row ``row`` (from 0) ends. Slow, and needed in messages only."""
        return self._line(row, lambda text: self._is_row(text))

    def _malformed(self, rows: "list[pa.csv.InvalidRow]") -> InputError:
        first = rows[0]
        line = self._line(first.number - 1, bool)
        return InputError(
            f"{first.expected_columns} fields in each row of {self.path}",
            f"{len(rows):,} other rows, first line {line:,} with {first.actual_columns}: "
            f"{first.text[:80]!r}",
            "mend these rows (a field that holds the separator needs quotes)"
            + (f", or set {self.option} if it is not {self.separator!r}" if self.option else ""),
        )

    def _line(self, row: int, counts: Callable[[bytes], bool]) -> int:
        breaks = np.flatnonzero(np.frombuffer(self.data, np.uint8) == ord("\n"))
        ends = breaks[(breaks >= self.start) & ~_within(self.spans, breaks)]
        begin = self.start
        for end in ends.tolist():
            if counts(self.data[begin:end]):
                if row == 0:
                    return int(np.searchsorted(breaks, end)) + 1
                row -= 1
            begin = end + 1
        return len(breaks)

    def _is_row(self, text: bytes) -> bool:
        """Whether the text between two line breaks is a row: what is blank may be none."""
        if text.strip():
            return True
        return bool(text) and text.count(self.separator.encode()) == len(self.names) - 1

    def _swallowing(self) -> tuple[int, str] | None:
        """The first quoted field over several lines, each of which would be a row of its own."""
        if not len(self.spans):
            return None
        breaks, complete = self._lines()
        incomplete = np.concatenate([[0], np.cumsum(~complete)])
        first, last = np.searchsorted(breaks, self.spans).T
        swallowed = np.flatnonzero(incomplete[last + 1] == incomplete[first])
        if not len(swallowed):
            return None
        first, last = first[swallowed[0]] + 1, last[swallowed[0]] + 1
        return int(first), (
            f"one from line {first:,} to line {last:,}, each of which looks like a row of its own"
        )

    def _is_one_row_per_line(self) -> bool:
        breaks, complete = self._lines()
        return bool(complete[np.searchsorted(breaks, self.start) :].all())

    def _lines(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where each line ends, and whether it has a row's number of fields, or is empty."""
        characters = np.frombuffer(self.data, np.uint8)
        breaks = np.flatnonzero(characters == ord("\n"))
        places = np.searchsorted(np.flatnonzero(characters == ord(self.separator)), breaks)
        separators = np.diff(places, prepend=0)
        empty = np.diff(breaks, prepend=-1) == 1
        return breaks, (separators == len(self.names) - 1) | empty


_QUOTE_REMEDY = 'write a quote that is text twice (""), or give Parquet'


def _separator(path: Path, header: str, sample: bytes, preferred: str, option: str | None) -> str:
    """The one that the header has; ``preferred`` where it has none, and so a single column."""
    bare = re.sub(r'"[^"]*"', "", header)
    found = [one for one in _GUESSED if one in bare]
    lines = [re.sub(rb'"[^"]*"', b"", line) for line in sample.split(b"\n")[:20] if line.strip()]
    if preferred in bare:
        # A comma in a name of one column must not hide the semicolons between all of them.
        steady = [one for one in found if len({line.count(one.encode()) for line in lines}) == 1]
        if len(steady) == 1 and bare.count(steady[0]) > bare.count(preferred):
            return steady[0]
        return preferred
    if len(found) > 1:
        raise InputError(
            f"one separator in the header of {path}",
            f"several: {' '.join(map(repr, found))}",
            f"set {option} to one of {', '.join(SEPARATORS)}" if option else "write it with commas",
        )
    return found[0] if found else preferred


def _within(spans: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    begun = np.searchsorted(spans[:, 0], offsets, side="right")
    inside: NDArray[np.bool_] = begun > np.searchsorted(spans[:, 1], offsets, side="right")
    return inside


def _end_of_record(data: bytes, start: int, spans: NDArray[np.int64]) -> int:
    end = data.index(b"\n", start)
    for first, last in spans.tolist():
        if first < end < last:
            end = data.index(b"\n", last)
    return end


def _header(path: Path, line: str, separator: str) -> list[str]:
    """Names of the columns; those without one are called ""."""
    try:
        fields = next(csv.reader([line], delimiter=separator))
    except csv.Error as error:
        raise InputError(
            f"names of columns in the first line of {path}",
            str(error),
            "check how it was written",
        ) from error
    names = [name.strip() for name in fields]
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise InputError(
            f"each column of {path} to have a name of its own", f"repeated: {repeated}", "rename"
        )
    return names
