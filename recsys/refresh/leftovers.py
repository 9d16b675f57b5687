"""What turns leave behind, so that the disk does not fill up, whatever was killed when."""

import glob
import logging
import secrets
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from recsys.bundle import LATEST, list_bundles
from recsys.bundle.placing import fsync
from recsys.core.locks import Lock
from recsys.training.run_folder import past_runs

log = logging.getLogger(__name__)

_SECONDS_OF_A_PROMOTION = 3600
"""More than it takes by far."""


def remove_leftovers(root: Path, prefix: str) -> None:
    """Of turns that were killed: bundles of trainings that did not end, with what they have
    logged, and what was half written or removed.

    Args:
        prefix: of the names of all bundles that turns make. No other turn may be going on.
    """
    served = (root / LATEST).resolve()
    for run, is_complete in past_runs(root, prefix):
        bundle = root / run.name
        if not is_complete and bundle.resolve() != served:
            log.info("refresh: %s, whose training did not end, is removed", run.name)
            _remove(bundle)
            shutil.rmtree(run, ignore_errors=True)
    for left in root.glob(f".{glob.escape(prefix)}*"):
        lock = Lock(left)
        if lock.held:
            shutil.rmtree(left, ignore_errors=True)
        lock.release()
    for link in root.glob(f".{LATEST}.*.partial"):
        # Another program may be promoting a bundle of its own right now.
        if link.is_symlink() and time.time() - link.lstat().st_mtime > _SECONDS_OF_A_PROMOTION:
            link.unlink(missing_ok=True)


def remove_old(root: Path, prefix: str, keep: int, kept: Collection[Path]) -> None:
    """Bundles that former turns made, but for the newest; and logs of those that are gone."""
    made = [one for one in list_bundles(root) if one.name.startswith(prefix)]
    old = sorted((one for one in made if one not in kept), key=lambda one: one.stat().st_mtime)
    for bundle in old[: max(len(old) - keep, 0)]:
        log.info("refresh: %s of a former turn is removed", bundle)
        _remove(bundle)
    for run, _ in past_runs(root, prefix):
        if not (root / run.name).exists():
            shutil.rmtree(run, ignore_errors=True)


def _remove(bundle: Path) -> None:
    """All of it is under its name, or nothing."""
    if bundle.exists():
        removed = bundle.with_name(f".{bundle.name}.{secrets.token_hex(4)}.removed")
        bundle.rename(removed)
        fsync(bundle.parent)
        shutil.rmtree(removed, ignore_errors=True)
