"""Which fields of a delimited text are quoted, and whether all quotes belong to one (RFC 4180).

A field is quoted when it begins with a quote; it ends with the next one that is not doubled. Quotes
within other fields are text.
"""

import re

import numpy as np
from numpy.typing import NDArray

Spans = NDArray[np.int64]
Fault = tuple[int, str]


def quoted_fields(data: bytes, start: int, separator: str) -> tuple[Spans, Fault | None]:
    """Start and end offsets [S, 2] of the quoted fields that hold line breaks, in order.

    Args:
        data: ends with a line feed. start: offset of the first line.

    Returns:
        With them, the line and a description of the first quote that does not begin and end where
        a field does, where there is one; the spans are then those before it.
    """
    regular = _regular(data, start, separator)
    return (regular, None) if regular is not None else _one_by_one(data, start, separator)


def _regular(data: bytes, start: int, separator: str) -> Spans | None:
    """The spans where all quotes are in pairs around fields; None where some are not."""
    if data.find(b'"', start) < 0:
        return np.zeros((0, 2), np.int64)
    characters = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(characters == ord('"'))
    quotes = quotes[quotes >= start]
    if len(quotes) % 2:
        return None
    edges = (characters == ord("\n")) | (characters == ord(separator))
    opening, closing = quotes[::2], quotes[1::2]
    doubled = closing[:-1] + 1 == opening[1:]  # a quote within a field closes and opens it again
    first, last = np.append(True, ~doubled), np.append(~doubled, True)
    begins, ends = opening[first], closing[last] + 1
    if not (edges[begins[begins > start] - 1].all() and edges[ends].all()):
        return None
    breaks = np.flatnonzero(characters == ord("\n"))
    several = np.searchsorted(breaks, begins) < np.searchsorted(breaks, ends)
    return np.stack([begins[several], ends[several]], axis=1)


def _one_by_one(data: bytes, start: int, separator: str) -> tuple[Spans, Fault | None]:
    """The same by a loop over quoted fields, for texts that have other quotes as well."""
    edge = re.escape(separator).encode() + rb"\n"
    field = re.compile(
        rb'(?<![^%b])(?:"[^"\n]*(?:""[^"\n]*)*" *(?![^%b])'
        rb'|("[^"]*(?:""[^"]*)*" *(?![^%b]))|( *"))' % (edge, edge, edge)
    )
    spans: list[tuple[int, int]] = []
    fault = None
    for match in field.finditer(data, start):
        if match.lastindex == 1:
            spans.append(match.span())
        elif match.lastindex == 2:
            line = data.count(b"\n", 0, match.start()) + 1
            text = data[match.start() : match.start() + 40].split(b"\n")[0]
            fault = (
                line,
                (
                    f"one in line {line:,} that does not begin and end where a field does: "
                    f"{text.decode(errors='replace')!r}"
                ),
            )
            break
    return np.array(spans, np.int64).reshape(-1, 2), fault
