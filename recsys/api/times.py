"""Times of events, in seconds or as ISO 8601: by the rule that files are read by."""

import math
import re
from typing import Annotated, Any

import pandas as pd
from annotated_types import Interval
from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from recsys.data.files import EARLIEST, LATEST, parse_timestamps

# The parser takes "now" as well, and fails on years beyond nanoseconds of 64 bits.
_READABLE = re.compile(r"\s*([+-]?[\d.]+([eE][+-]?\d+)?\s*$|(19|20|21)\d\d-?\d\d)")


def _parsed(value: object) -> object:
    # ``with_seconds`` leaves behind what it cannot read.
    if isinstance(value, (str, float, bool)):
        raise PydanticCustomError(
            "time_parsing", "Input should be unix seconds or ISO 8601, such as 2026-01-31T12:00:00Z"
        )
    return value


_DESCRIBED = {
    "anyOf": [
        {"type": "integer", "minimum": EARLIEST, "maximum": LATEST},
        {"type": "string", "format": "date-time"},
    ]
}
EventTime = Annotated[
    int, Interval(ge=EARLIEST, le=LATEST), BeforeValidator(_parsed), WithJsonSchema(_DESCRIBED)
]
"""Unix seconds."""


def with_seconds(events: list[Any]) -> list[Any]:
    """Events as sent, with whole unix seconds wherever ``timestamp`` can be read as such."""
    times = {row: one.get("timestamp") for row, one in enumerate(events) if isinstance(one, dict)}
    seconds = {
        row: math.floor(time)
        for row, time in times.items()
        if isinstance(time, float) and math.isfinite(time)
    }
    written = {
        row: time.strip()
        for row, time in times.items()
        if isinstance(time, str) and _READABLE.match(time)
    }
    texts = pd.Series(written, dtype=str)
    # The parser takes a column for one of seconds or of ISO 8601, as most of its rows are.
    for _ in range(2):
        if len(texts):
            found = parse_timestamps(texts).dropna()
            seconds.update(zip(found.index, map(int, found), strict=True))
            texts = texts.drop(found.index)
    return [
        {**one, "timestamp": seconds[row]} if row in seconds else one
        for row, one in enumerate(events)
    ]
