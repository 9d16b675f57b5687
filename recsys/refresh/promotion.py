"""A challenger takes the champion's place: the link, the history and the server, in this order.

Each is one step, and a turn may be killed between any two. What is to be done is on disk before the
first, so that the next turn does what is left: else the history would lack the turn, and a server
would go on with the former model until the next promotion.
"""

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.bundle import LATEST, make_latest
from recsys.bundle.placing import fsync
from recsys.core.bounded import parse_json, read_bounded
from recsys.errors import InputError

log = logging.getLogger(__name__)

HISTORY_FILE = "refresh.jsonl"
_INTENT_FILE, _MAX_BYTES = ".refresh.promotion", 1_000_000
_SECONDS_TO_RELOAD = 300


def promote(bundle: Path, line: Mapping[str, Any]) -> None:
    """Let ``latest``, beside the bundle, name it, and add the line to the history.

    What is left is to tell a server: ``settle``.
    """
    root = bundle.parent
    partial = _partial(root)
    partial.write_text(json.dumps({"bundle": bundle.name, "line": line}))
    fsync(partial)
    partial.replace(root / _INTENT_FILE)
    make_latest(bundle)
    add_line(root, line)


def add_line(root: Path, line: Mapping[str, Any]) -> None:
    """Of one turn, to the history beside the bundles."""
    with (root / HISTORY_FILE).open("a") as file:
        file.write(json.dumps(line) + "\n")


def go_on(root: Path) -> None:
    """Do what a killed turn has left to do here: complete the history, or forget a promotion that
    did not begin.
    """
    _partial(root).unlink(missing_ok=True)
    intent = _intent(root)
    if intent is None:
        return
    if (root / LATEST).resolve().name != intent["bundle"]:
        (root / _INTENT_FILE).unlink()
        return
    file = root / HISTORY_FILE
    lines = file.read_text().splitlines() if file.exists() else []
    if json.dumps(intent["line"]) not in lines:
        log.info("refresh: a former turn was ended after its promotion of %s", intent["bundle"])
        add_line(root, intent["line"])


def settle(root: Path, server: str | None, key: str | None) -> None:
    """Have a server load what was promoted in this turn, or in one that could not tell it.

    Args:
        server: its URL; None where there is none to tell. key: for it.

    Raises:
        InputError: when it does not. The next turn tells it again.
    """
    intent = _intent(root)
    if intent is None:
        return
    if server is not None:
        _reload(server, intent["bundle"], key)
    (root / _INTENT_FILE).unlink()


def _partial(root: Path) -> Path:
    return root / f"{_INTENT_FILE}.partial"


def _intent(root: Path) -> Any:
    file = root / _INTENT_FILE
    try:
        return parse_json(read_bounded(file, _MAX_BYTES, "remove it"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"a promotion as JSON in {file}", str(error), "remove it") from error


def _reload(server: str, name: str, key: str | None) -> None:
    headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
    request = urllib.request.Request(
        f"{server.rstrip('/')}/admin/reload", json.dumps({"name": name}).encode(), headers
    )
    remedy = "the next turn tells it again, or reload it by hand"
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS_TO_RELOAD) as response:
            log.info("refresh: %s serves %s", server, json.load(response)["model_version"])
    except urllib.error.HTTPError as error:
        found = f"{error.code}: {error.read().decode(errors='replace')[:300]}"
        raise InputError(f"{server} to serve the new model", found, remedy) from error
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{server} to serve the new model", str(error)[:300], remedy) from error
