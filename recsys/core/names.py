"""Names that become a file's or a folder's: of bundles and their files, of runs, of data sets.

The one place that decides which will do, wherever a name comes from: a manifest or a command line.
"""

import hashlib
from typing import TypeGuard

from recsys.errors import InputError

MAX_BYTES = 150
"""File systems take 255; a time, a suffix and the marks of an unfinished file come to it."""


def is_plain_name(name: object) -> TypeGuard[str]:
    """Whether a name stays in its folder, is not hidden, and is printed on one line as it is."""
    return (
        isinstance(name, str)
        and name.isprintable()  # no line break, no control character, no half of a surrogate pair
        and 0 < len(name.encode()) <= MAX_BYTES
        and name == name.strip()
        and not name.startswith(".")
        and not set(name) & set("/\\")
    )


def check_plain_name(name: object, of: str, remedy: str) -> str:
    """The name itself.

    Args:
        of: what is named, for the error. remedy: what to do about another one.

    Raises:
        InputError: when it will not do.
    """
    if not is_plain_name(name):
        raise InputError(
            f"{of} to be a plain name (at most {MAX_BYTES} bytes, no / or \\, no dot in front)",
            repr(name)[:100],
            remedy,
        )
    return name


def plain_name(name: object) -> str:
    """The name itself if it will do, else one that is made of it: the same for the same name."""
    if is_plain_name(name):
        return name
    return f"data-{hashlib.sha256(repr(name).encode('utf-8', 'backslashreplace')).hexdigest()[:12]}"
