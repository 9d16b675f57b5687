"""How an integer id is written. Light, so that command lines can import it at once."""

import re

INT64_END = 2**63
"""Integer ids are of 64 bits: from ``-INT64_END``, below ``INT64_END``."""

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")


def integer_of(text: str) -> int | None:
    """The integer that a text writes in the one way in which ids are written, else None.

    Python's ``int`` takes more: "1_0", "+1", " 1", "01" and other scripts' digits would each be
    taken for the id of somebody else. The caller checks the range of 64 bits.
    """
    return int(text) if _INTEGER.fullmatch(text) else None


def integer_id(text: str) -> int | None:
    """The id of 64 bits that a text writes, else None; see ``integer_of``."""
    found = integer_of(text)
    return found if found is not None and -INT64_END <= found < INT64_END else None
