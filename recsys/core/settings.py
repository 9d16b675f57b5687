"""Plain settings from outside: numbers within bounds and short texts, by name, and nothing else."""

from collections.abc import Callable, Mapping, Sized
from typing import Any, NamedTuple

from recsys.errors import InputError

_MAX_SHOWN = 60


class Setting(NamedTuple):
    """expected: what it has to be, in words. fits: whether a value is that."""

    expected: str
    fits: Callable[[Any], bool]


FLAG = Setting("true or false", lambda value: isinstance(value, bool))


def whole(low: int, high: int) -> Setting:
    """An integer in low..high."""
    return Setting(
        f"an integer in {low}..{high}", lambda value: type(value) is int and low <= value <= high
    )


def real(low: float, high: float) -> Setting:
    """A number in low..high, and so a finite one."""
    return Setting(
        f"a number in {low:g}..{high:g}",
        lambda value: type(value) in (int, float) and low <= value <= high,
    )


def text(max_length: int) -> Setting:
    return Setting(
        f"a text of at most {max_length} characters",
        lambda value: isinstance(value, str) and len(value) <= max_length,
    )


def texts(max_number: int, max_length: int) -> Setting:
    """A list of texts."""
    return Setting(
        f"at most {max_number} texts of at most {max_length} characters",
        lambda value: (
            isinstance(value, list)
            and len(value) <= max_number
            and all(isinstance(one, str) and len(one) <= max_length for one in value)
        ),
    )


def one_of(*values: str) -> Setting:
    return Setting(f"one of {', '.join(values)}", lambda value: value in values)


def or_null(setting: Setting) -> Setting:
    return Setting(
        f"{setting.expected}, or null", lambda value: value is None or setting.fits(value)
    )


def checked(
    found: object, allowed: Mapping[str, Setting], where: str, remedy: str
) -> dict[str, Any]:
    """``found`` as a dictionary, if each of its keys is allowed and each value fits.

    Args:
        where: the place of ``found``, for the error.

    Raises:
        InputError: otherwise.
    """
    if not isinstance(found, Mapping):
        raise InputError(f"settings by name in {where}", shown(found), remedy)
    for key, value in found.items():
        if key not in allowed:
            expected = f"in {where} settings among {', '.join(allowed)}"
            raise InputError(expected, shown(key), remedy)
        if not allowed[key].fits(value):
            raise InputError(f"{where}.{key} to be {allowed[key].expected}", shown(value), remedy)
    return dict(found)


def shown(value: object) -> str:
    """A value from outside, in an error: on one line and not long."""
    if isinstance(value, Sized) and len(value) > 10 * _MAX_SHOWN:
        return f"{type(value).__name__} of length {len(value)}"
    if isinstance(value, int) and value.bit_length() > 200:  # Python writes no huge ones
        return "a huge integer"
    written = ascii(value)
    return written if len(written) <= _MAX_SHOWN else written[: _MAX_SHOWN - 1] + "…"
