"""Parameters in a query that the route does not know, or takes once: refused, not passed over."""

import difflib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError

from recsys.api.ids import check_encoded


class KnownParameters:
    """A dependency of all routes: what the API's description knows may be asked, nothing else."""

    def __init__(self) -> None:
        # By path and method: the names, and whether each may repeat.
        self._known: dict[tuple[str, str], dict[str, bool]] = {}

    def read(self, description: Mapping[str, Any]) -> None:
        """Take what is known from an OpenAPI description."""
        for path, operations in description["paths"].items():
            for method, operation in operations.items():
                self._known[path, method.upper()] = {
                    one["name"]: one["schema"].get("type") == "array"
                    for one in operation.get("parameters", ())
                    if one["in"] == "query"
                }

    async def __call__(self, request: Request) -> None:
        """Pass a request whose parameters are all known, each given once unless it is a list.

        Raises:
            RequestValidationError: otherwise, with the nearest name.
        """
        query: bytes = request.scope["query_string"]
        if not query:
            return
        check_encoded(query, "query")
        if not self._known:
            self.read(request.app.openapi())
        known = self._known[request.scope["route"].path_format, request.method]
        given = Counter(name for name, _ in request.query_params.multi_items())
        problems = []
        for name, number in given.items():
            if name not in known:
                problems.append(_problem("extra_forbidden", name, _unknown(name, list(known))))
            elif number > 1 and not known[name]:
                told = f"expected {name!r} once; found it {number} times"
                problems.append(_problem("repeated", name, told))
        if problems:
            raise RequestValidationError(problems)


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known) or 'none'}"
    return f"unknown parameter {name[:100]!r}; {hint}"


def _problem(kind: str, name: str, message: str) -> dict[str, Any]:
    return {"type": kind, "loc": ("query", name[:100]), "msg": message}
