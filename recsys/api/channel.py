"""What the supervisor and a worker tell each other: one line of JSON per message.

The supervisor sends ``{"do": …}``: ``start`` (with the settings), ``serve``, ``load`` (a folder),
``swap``, ``drop`` and ``answer`` (to a reload that the worker asked for). A worker sends
``{"say": …}``: ``loaded``, ``done``, ``refused`` (with an InputError) and ``reload`` (a folder).
"""

import json
from typing import Any

from recsys.errors import InputError

Message = dict[str, Any]


def encoded(message: Message) -> bytes:
    """A message as a line."""
    return json.dumps(message).encode() + b"\n"


def decoded(line: bytes) -> Message:
    """A line as a message."""
    message: Message = json.loads(line)
    return message


def packed(error: InputError) -> list[str]:
    """An error as a value in a message."""
    return [error.expected, error.found, error.remedy]


def unpacked(parts: list[str]) -> InputError:
    """The error again."""
    return InputError(*parts)
