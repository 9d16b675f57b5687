"""What the supervisor and a worker tell each other: one line of JSON per message.

The supervisor sends ``{"do": …}``: ``start`` (with the settings), ``serve``, ``load`` (a folder),
``swap``, ``drop`` and ``answer`` (to a reload that the worker asked for). A worker sends
``{"say": …}``: ``loaded``, ``done``, ``refused`` (with an InputError), ``reload`` (a folder, or
null for the newest bundle) and, each second once it serves, ``alive``.
"""

import json
from typing import Any

from recsys.errors import InputError

Message = dict[str, Any]

MAX_BYTES = 1 << 20
"""Of what a worker says at a time."""
# An error may name all that lies in a folder, or quote what a file holds.
_MAX_CHARACTERS = 2_000
_CONTENT: dict[str, dict[str, tuple[type, ...]]] = {
    "loaded": {"version": (str,), "device": (str,)},
    "done": {},
    "refused": {"error": (list,)},
    "reload": {"folder": (str, type(None))},
    "alive": {},
}


def encoded(message: Message) -> bytes:
    """A message as a line."""
    return json.dumps(message).encode() + b"\n"


def decoded(line: bytes) -> Message:
    """A line as a message."""
    message: Message = json.loads(line)
    return message


def said(line: bytes) -> Message:
    """What a worker says, which may be out of order in any way.

    Raises:
        ValueError: when it is no message, or lacks what it should have.
    """
    try:
        message = json.loads(line)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    kind = message.get("say") if isinstance(message, dict) else None
    content = _CONTENT.get(kind) if isinstance(kind, str) else None
    if content is None:
        raise ValueError("no message of a worker")
    for key, types in content.items():
        if not isinstance(message.get(key, ...), types):
            raise ValueError(f"a message {kind!r} without {key!r}")
    if kind == "refused":
        unpacked(message["error"])
    return dict(message)


def packed(error: InputError) -> list[str]:
    """An error as a value in a message; what is very long is cut."""
    return [_cut(text) for text in (error.expected, error.found, error.remedy)]


def unpacked(parts: list[str]) -> InputError:
    """The error again.

    Raises:
        ValueError: when these are not three texts.
    """
    if len(parts) != 3 or not all(isinstance(part, str) for part in parts):
        raise ValueError("no error")
    return InputError(*parts)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "…"
