"""One line of JSON per event on the standard error stream, with the id of the request."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from recsys.api.log_queue import QueuedStreamHandler
from recsys.errors import InputError

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being answered."""
_LEVELS = ("critical", "error", "warning", "info", "debug")


class JsonFormatter(logging.Formatter):
    """Time, level, logger and message; what ``extra={"fields": {...}}`` holds; the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        name = request_id.get()
        if name is not None:
            entry["request_id"] = name
        entry |= getattr(record, "fields", {})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def check_level(level: str) -> None:
    """Raise InputError on a name that is no level's."""
    if level not in _LEVELS:
        expected = f"log_level to be one of {', '.join(_LEVELS)}"
        raise InputError(expected, repr(level), "set log_level=info")


def log_config(level: str) -> dict[str, Any]:
    """For ``logging.config`` and uvicorn: everything as JSON, uvicorn's own access log left out."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"json": {"()": QueuedStreamHandler, "formatter": "json"}},
        "root": {"handlers": ["json"], "level": level.upper()},
        # Named, since the command line has set a level of its own for the product's.
        "loggers": {name: {"level": level.upper()} for name in ("recsys", "uvicorn")},
    }
