"""What the text in a cell means: a number, a missing value, an id."""

import pandas as pd

from recsys.errors import InputError

NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"

MISSING = ("", "NULL", "null", "\\N", "NaN", "nan", "<NA>", "NaT", "N/A", "n/a", "#N/A")
"""How databases, pandas and spreadsheets write that there is no value."""
MISSING_NUMBER = (*MISSING, "NA", "na", "None", "none", "Null", "-")
"""As well where numbers are expected; elsewhere these may be names, as of a region."""

_INTEGER = r"0|-?[1-9][0-9]{0,17}"
_FRACTION_OF_ZERO = r"-?[0-9]+\.0+"
_WHOLE = f"{_INTEGER}|{_FRACTION_OF_ZERO}"
_EXPONENT = r"-?[0-9](\.[0-9]+)?[eE][+-]?[0-9]+"
_EXACT = 2**53


def are_numbers(text: "pd.Series[str]") -> "pd.Series[bool]":
    return text.str.fullmatch(NUMBER).astype(bool)


def are_integers(text: "pd.Series[str]") -> bool:
    """Whether each value is written as an integer would be ("7", not "007" or "7.0")."""
    return bool(text.str.fullmatch(_INTEGER).all())


def are_ids(text: "pd.Series[str]") -> "pd.Series[bool]":
    """Which values are an id, and not how a program writes that there is none."""
    missing = text.isin(MISSING_NUMBER)
    if missing.any() and not text[~missing].str.fullmatch(_WHOLE).all():
        missing = text.isin(MISSING)  # and, say, NA is somebody's id
    return ~missing


def ids_of_floats(text: "pd.Series[str]", where: str) -> "pd.Series[str]":
    """Ids as they were before a program held them as floats: "3.0" as "3".

    pandas makes floats of integers where one is missing. Only a column of nothing but such numbers
    is changed.

    Args:
        where: the column and its file, for error messages.

    Raises:
        InputError: when a float has lost digits of its id.
    """
    whole = text.str.fullmatch(_FRACTION_OF_ZERO).astype(bool)
    if not whole.any():
        return text
    if not whole.all():
        rounded = ~whole & text.str.fullmatch(_EXPONENT).astype(bool)
        if not (whole | rounded).all():
            return text
    digits = text.str.replace(r"\.0+$", "", regex=True)
    lost = ~whole | (pd.to_numeric(digits, errors="coerce").abs() > _EXACT)
    if lost.any():
        raise InputError(
            f"ids in {where}",
            f"{int(lost.sum()):,} floats that have lost digits, first {text[lost].iloc[0]!r}",
            "write them as integers or as text",
        )
    return digits
