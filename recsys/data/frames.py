"""Frames that Python programs hold, as the columns of text that files are read to.

So what is found in a frame is validated and cleaned by the rules for files. pandas, Polars, PyArrow
and whatever else speaks Arrow's PyCapsule interface are read by PyArrow; no further library is
needed for them.
"""

from collections.abc import Collection
from typing import Any

import pandas as pd
import pyarrow as pa

from recsys.data.tables import TextTable, text_table
from recsys.errors import InputError


def read_frame(frame: object, what: str, wanted: Collection[str] | None = None) -> TextTable:
    """The columns of a frame as text; the frame stays as it is.

    Args:
        frame: a pandas frame (its named index levels count as columns), or an object with
            ``__arrow_c_stream__`` or ``to_pandas()``. what: what it holds, for error messages.
        wanted: names of columns; others are left out. None takes all.

    Raises:
        InputError: when it is no frame, has no rows, or a name or a column will not do.
    """
    columns = _columns(frame, what)
    names = [name.strip() for name, _ in columns]
    chosen = [
        (name, _as_arrow(values))
        for name, values in columns
        if wanted is None or name.strip() in wanted
    ]
    table = text_table(what, names, chosen, lambda row: f"row {row:,} (from 0)")
    if table.frame.empty and chosen:
        raise InputError(f"rows in {what}", "none", "check how the frame was made")
    return table


def _columns(frame: Any, what: str) -> list[tuple[str, "pd.Series[Any] | pa.ChunkedArray"]]:
    """Names and values."""
    if not isinstance(frame, pd.DataFrame):
        if hasattr(frame, "__arrow_c_stream__"):
            table = _arrow_table(frame, what)
            return list(zip(table.column_names, table.columns, strict=True))
        frame = frame.to_pandas() if hasattr(frame, "to_pandas") else frame
    if not isinstance(frame, pd.DataFrame):
        raise InputError(
            f"{what} to be a frame of pandas, Polars or Arrow",
            f"{type(frame).__module__}.{type(frame).__qualname__}",
            "make a frame of it, as by pandas.DataFrame(rows) or pandas.read_csv(path)",
        )
    levels = [
        (str(name), frame.index.get_level_values(number).to_series())
        for number, name in enumerate(frame.index.names)
        if name is not None and name not in frame.columns
    ]
    return [*levels, *((str(name), values) for name, values in frame.items())]


def _arrow_table(frame: Any, what: str) -> pa.Table:
    try:
        return pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"columns of text or numbers in {what}", reason, "give a frame of pandas"
        ) from error


def _as_arrow(values: "pd.Series[Any] | pa.ChunkedArray") -> pa.ChunkedArray:
    if isinstance(values, pa.ChunkedArray):
        return values
    try:
        column = pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError):
        # Objects of several types, or of one that Arrow does not know, are what they print as.
        column = pa.array(values.astype("object").map(str, na_action="ignore"), from_pandas=True)
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
