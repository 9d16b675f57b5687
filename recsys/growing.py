"""Rows that grow at their end, while what was handed out before stays as it was."""

from torch import Tensor


class GrowingRows:
    """A tensor [n, …] with room for more rows.

    Rows are written behind the end of what others read, so that a copy is made only when room runs
    out: as seldom as lists of Python make one.

    Args:
        rows: read, and copied once there are more.
    """

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self._buffer = rows
        # Shared by all that write to the same buffer: its rows in use.
        self._used = [len(rows)]

    def with_rows(self, positions: Tensor, values: Tensor) -> "GrowingRows":
        """With values [m, …] at positions int64 [m]; this object stays as it is.

        Positions from ``n`` on are new rows, in order and without gaps. To replace others takes a
        copy, as others read them.
        """
        new = positions >= len(self.rows)
        rows = self._extended(values[new]) if new.any() else self
        if new.all():
            return rows
        replaced = rows.rows.clone()
        replaced[positions[~new]] = values[~new]
        return GrowingRows(replaced)

    def _extended(self, more: Tensor) -> "GrowingRows":
        start, end = len(self.rows), len(self.rows) + len(more)
        grown = GrowingRows.__new__(GrowingRows)
        if end > len(self._buffer) or self._used[0] != start:
            grown._buffer = self.rows.new_empty((2 * end, *self.rows.shape[1:]))
            grown._buffer[:start] = self.rows
            grown._used = [end]
        else:
            grown._buffer, grown._used = self._buffer, self._used
            grown._used[0] = end
        grown._buffer[start:end] = more
        grown.rows = grown._buffer[:end]
        return grown
