"""Times in files: unix seconds or ISO 8601."""

import pandas as pd

from recsys.data.cells import are_numbers

EARLIEST, LATEST = 31_536_000, 4_102_444_800
"""Times are taken for real from 1971 to 2100: a date such as 19990131, a counter or milliseconds
read as seconds fall outside."""


def parse_timestamps(text: "pd.Series[str]") -> "pd.Series[int]":
    """Unix seconds (Int64) of a column in seconds or in ISO 8601, as most of its rows are.

    A value of the other kind, or of neither, is missing in the result.
    """
    numeric = are_numbers(text)
    if numeric.mean() >= 0.5:
        seconds = pd.to_numeric(text.where(numeric), errors="coerce").astype("Float64")
        return (seconds.where(seconds.abs() < 2**62) // 1).astype("Int64")
    # pandas takes words such as "now" for times, too.
    text = text.where(~numeric & text.str.match(r"[0-9]").astype(bool))
    text = text.str.replace(r" ?(UTC|GMT)$", "Z", regex=True)
    times = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    # In a unit that holds all years up to 9999.
    microseconds = times.dt.as_unit("us").astype("int64").astype("Int64")
    return (microseconds // 1_000_000).where(times.notna())
