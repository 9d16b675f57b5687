"""The content of metrics.json as what people read: a dictionary that prints as its table."""

import io
from typing import Any

from rich.console import Console

from recsys.results import results_markdown, results_table

_WIDTH = 100


class MetricsTable(dict[str, Any]):
    """Metrics by name, as in metrics.json; printed, and shown by a notebook, as a table."""

    def __repr__(self) -> str:
        console = Console(file=io.StringIO(), width=_WIDTH, color_system=None)
        with console.capture() as printed:
            console.print(results_table(self))
        return "\n".join(line.rstrip() for line in printed.get().rstrip().splitlines())

    def _repr_markdown_(self) -> str:
        return results_markdown(self)
