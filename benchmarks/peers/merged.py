"""Results of peers beside those of the product, where both are of the same rows."""

import logging
from pathlib import Path

from benchmarks.quality_tables import Unit
from benchmarks.runs import RESULT, ROOT

log = logging.getLogger(__name__)

PEERS = ROOT / "checkpoints" / "peers" / "sets"
"""Where ``on_sets`` keeps its results, a folder per set, protocol and seed."""


def with_peers(unit: Unit, folder: Path) -> Unit:
    """With the systems of ``folder``, if there are any and they are of the same rows.

    ``content["peers"]`` has each one's epochs, seconds, memory and versions.
    """
    if not (folder / RESULT).is_file():
        return unit
    peers = Unit.load(folder)
    if (peers.content["data"], peers.content["metrics"]) != (
        unit.content["data"],
        unit.content["metrics"],
    ):
        log.warning("%s is of other rows and passed over: run benchmarks.peers.on_sets", folder)
        return unit
    content = {**unit.content, "peers": peers.content["peers"]}
    return Unit(content, {**unit.per_user, **peers.per_user})
