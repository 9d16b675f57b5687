"""Which rows count as positives: one comparison of a column with a number or a name."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.cells import NUMBER
from recsys.errors import InputError
from recsys.schema import RATING, TYPE, WEIGHT

_NUMBERS = (RATING, WEIGHT)
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_PATTERN = re.compile(rf"\s*(\w+)\s*({'|'.join(_OPERATORS)})\s*(\S.*?)\s*")
_QUOTED = re.compile(r"""(['"])(.*)\1""")


@dataclass(frozen=True)
class Condition:
    """``column operator value``, as in ``rating >= 4`` or ``type != view``.

    Numbers (rating, weight) compare by all six operators, types by == and != alone. A rating that
    is missing, and a type that is not told, meets no condition.
    """

    text: str
    column: str
    operator: str
    value: float | str

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Read a condition; nothing in it is ever evaluated as code.

        Raises:
            InputError: when it is none.
        """
        found = _PATTERN.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise _refused(f"{text!r}")
        column, sign, value = found.groups()
        quoted = _QUOTED.fullmatch(value)
        if column in _NUMBERS:
            if not re.fullmatch(NUMBER, value) or not np.isfinite(float(value)):
                raise _refused(f"{text!r}: {column} compares with a number")
            return cls(text.strip(), column, sign, float(value))
        if column != TYPE:
            raise _refused(f"{text!r}, of {column!r}")
        if sign not in ("==", "!="):
            raise _refused(f"{text!r}: a type has no order")
        return cls(text.strip(), column, sign, quoted[2] if quoted else value)

    def holds(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows [N] of a frame with the column meet it."""
        values = frame[self.column]
        is_told = (values != "") if self.column == TYPE else values.notna()
        met: NDArray[np.bool_] = (_OPERATORS[self.operator](values, self.value) & is_told).to_numpy(
            bool
        )
        return met


def _refused(found: str) -> InputError:
    return InputError(
        "data.positive to compare rating, weight or type with a number or a name",
        found,
        "write e.g. data.positive='rating >= 4' or data.positive='type != view'",
    )
