"""Text files as UTF-8, whatever wrote them."""

import gzip
import zlib
from pathlib import Path

from recsys.errors import InputError

MAX_UNPACKED = 8 << 30
"""Bytes of a gzip file's content."""

_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


def read_text(path: Path) -> bytes:
    """A text file as UTF-8 without a byte order mark, each line ended by one line feed.

    UTF-16 is told by its byte order mark; gzip is unpacked.

    Raises:
        InputError: when it is no text, or cannot be read.
    """
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            with gzip.open(path) as stream:
                data = stream.read(MAX_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise InputError(f"a readable file at {path}", found, "correct or copy it again") from error
    if len(data) > MAX_UNPACKED:
        raise InputError(f"at most {MAX_UNPACKED >> 30} GiB in {path}", "more", "give Parquet")
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            data = data[len(mark) :]
            if encoding != "utf-8":
                data = decoded(path, data, encoding).encode()
            break
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise InputError(
            f"{path} to be text in UTF-8, or in UTF-16 with a byte order mark",
            f"a NUL byte in line {line:,}",
            "save it as UTF-8",
        )
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data if data.endswith(b"\n") or not data else data + b"\n"


def decoded(path: Path, data: bytes, encoding: str) -> str:
    """The text; raises InputError naming the first line that is none."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"{data[error.start : error.end]!r} in line {line:,}"
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        raise InputError(f"{path} to be {name} text", found, "save it as UTF-8") from error
