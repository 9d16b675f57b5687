"""Files from outside, read within bounds: a plain file, of a size that was asked about first."""

import json
from pathlib import Path
from typing import Any, Never

from recsys.errors import InputError

_MAX_DEPTH = 40


def read_bounded(path: Path, max_bytes: int, remedy: str) -> bytes:
    """The content of a file.

    Raises:
        InputError: when it is no plain file (a pipe would make its reader wait), or larger.
        OSError: when it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"a file at {path}", "something else", remedy)
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise InputError(f"at most {max_bytes:,} bytes in {path}", "more", remedy)
    return content


def parse_json(content: bytes | str) -> Any:
    """JSON as its standard has it (no NaN), of limited depth.

    Raises:
        ValueError: when it is not.
    """
    try:
        value = json.loads(content, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("too deeply nested") from error
    if _deeper_than(value, _MAX_DEPTH):
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    return value


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is no JSON")


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return False
    return True


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
