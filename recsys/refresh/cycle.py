"""One turn of the loop: export, train, compare, promote."""

import json
import logging
import math
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys.artifact import Artifact, load_artifact
from recsys.bundle import list_bundles, make_latest, read_manifest, read_metrics
from recsys.core.locks import Lock
from recsys.errors import InputError
from recsys.export_events import Exported, export
from recsys.refresh.verdict import Limits, Verdict, judge
from recsys.schema import DISMISS, TIMESTAMP, TYPE, USER_ID
from recsys.training.champion import is_new

log = logging.getLogger(__name__)

HISTORY_FILE = "refresh.jsonl"
_LOCK_FILE, _WORK_FOLDER, _PREFIX = ".refresh.lock", ".refresh", "refresh"
_TRAIN = Path(__file__).parents[2] / "train.py"
_SECONDS_TO_RELOAD, _SECONDS_PER_HOUR = 300, 3600


@dataclass(frozen=True)
class Plan:
    """bundle: what is served, a link such as checkpoints/latest. store: URL of its event store.
    share: of the new events, the newest ones, that both models are compared on. overrides: of
    configs/train.yaml. server: whose workers are told of a new model; None for none. key: for it.
    keep: how many bundles of former turns stay, besides what is served. hours: that training may
    take.
    """

    bundle: Path
    store: str
    share: float
    limits: Limits
    overrides: Sequence[str]
    server: str | None = None
    key: str | None = None
    keep: int = 2
    hours: float = 24.0


def refresh(plan: Plan) -> Verdict:
    """Train a challenger on the champion's log and what has come since; promote it if not worse.

    Whatever is killed when, ``latest`` names the champion or a challenger that has won.

    Raises:
        InputError: when another turn is going on, or a part of this one fails. The champion stays.
        StoreUnavailableError: when the database fails on the way.
    """
    root = plan.bundle.parent
    with _alone(root) as folder:
        champion = load_artifact(plan.bundle.resolve())
        exported = export(plan.store, plan.bundle.resolve(), folder)
        rows = pd.read_parquet(exported.files["interactions"])
        if TYPE in rows:  # what was dismissed is not learned from
            rows = rows[rows[TYPE] != DISMISS]
        fraction, users = held_out_share(rows, champion, plan.share)
        if users < plan.limits.min_users:
            why = f"{users:,} users have new events to compare on, and {plan.limits.min_users} must"
            return _told(root, champion, None, Verdict(False, [why]), None)
        bundle = _train(plan, root, exported, fraction)
        metrics = read_metrics(bundle)
        verdict = judge(metrics, plan.limits)
        if verdict.promoted:
            make_latest(bundle)
        _told(root, champion, bundle, verdict, metrics["minus_champion"])
        if verdict.promoted and plan.server is not None:
            _reload(plan.server, bundle.name, plan.key)
        _remove_old(root, champion.manifest["dataset"], plan.keep, {bundle, plan.bundle.resolve()})
        return verdict


def held_out_share(rows: pd.DataFrame, champion: Artifact, share: float) -> tuple[float, int]:
    """The share of all rows, the latest ones, that holds ``share`` of the new events; and how many
    users have new events among them.
    """
    times = rows[TIMESTAMP].to_numpy(np.int64)
    new = is_new(champion, rows)
    if not new.any():
        return 0.0, 0
    newest = np.sort(times[new])[-max(1, math.floor(share * new.sum())) :]
    latest = times >= newest[0]
    return float(latest.mean()), int(rows.loc[latest & new, USER_ID].nunique())


@contextmanager
def _alone(root: Path) -> Iterator[Path]:
    """An empty folder, for as long as no other turn goes on; it holds users' data, so it goes."""
    lock = Lock(root / _LOCK_FILE)
    if not lock.held:
        raise InputError(f"no other refresh of {root}", "one that is going on", "wait for its end")
    folder = root / _WORK_FOLDER
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _train(plan: Plan, root: Path, exported: Exported, fraction: float) -> Path:
    """A bundle that is not served yet."""
    before = set(list_bundles(root))
    tables = [f"data.{name}={_quoted(path)}" for name, path in exported.files.items()]
    tables += [f"data.{name}={value}" for name, value in exported.settings.items()]
    command = [
        *(sys.executable, str(_TRAIN), "stage=all", "data=files", f"data.name={exported.name}"),
        *tables,
        *("data.split=global_time", f"data.test_fraction={fraction!r}", "promote=false"),
        *(f"champion={_quoted(plan.bundle.resolve())}", f"output_dir={_quoted(root)}"),
        *(f"name={exported.name}-{_PREFIX}", *plan.overrides),
    ]
    process = subprocess.Popen(command)
    try:
        status = process.wait(plan.hours * _SECONDS_PER_HOUR)
    except subprocess.TimeoutExpired as error:
        found = f"one that went on after {plan.hours:g} hours"
        remedy = "see above, or give it more time by --hours; the champion stays"
        raise InputError("a training of the challenger", found, remedy) from error
    finally:
        process.terminate()  # nothing happens to one that has ended
        process.wait()
    if status:
        found = f"one that ended with status {status}"
        raise InputError("a training of the challenger", found, "see above; the champion stays")
    made = [one for one in list_bundles(root) if one not in before and _PREFIX in one.name]
    if len(made) != 1:
        raise InputError("one new bundle", f"{len(made)} in {root}", "run refresh again")
    return made[0]


def _quoted(path: Path) -> str:
    escaped = str(path.absolute()).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _told(
    root: Path,
    champion: Artifact,
    bundle: Path | None,
    verdict: Verdict,
    difference: Any,
) -> Verdict:
    """A line in the history, and in the log."""
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "champion": champion.version,
        "challenger": None if bundle is None else read_manifest(bundle)["version"],
        "promoted": verdict.promoted,
        "reasons": verdict.reasons,
        "minus_champion": difference,
    }
    with (root / HISTORY_FILE).open("a") as file:
        file.write(json.dumps(line) + "\n")
    now = line["challenger"] if verdict.promoted else f"still {champion.version}"
    log.info("refresh: served is %s: %s", now, "; ".join(verdict.reasons))
    return verdict


def _reload(server: str, name: str, key: str | None) -> None:
    headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
    request = urllib.request.Request(
        f"{server.rstrip('/')}/admin/reload", json.dumps({"name": name}).encode(), headers
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS_TO_RELOAD) as response:
            log.info("refresh: %s serves %s", server, json.load(response)["model_version"])
    except urllib.error.HTTPError as error:
        found = f"{error.code}: {error.read().decode(errors='replace')[:300]}"
        raise InputError(f"{server} to serve the new model", found, "reload it by hand") from error
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{server} to serve the new model", str(error)[:300], "reload it by hand"
        ) from error


def _remove_old(root: Path, dataset: str, keep: int, kept: set[Path]) -> None:
    """Bundles that former turns made, but for the newest."""
    made = [one for one in list_bundles(root) if one.name.startswith(f"{dataset}-{_PREFIX}-")]
    old = sorted((one for one in made if one not in kept), key=lambda one: one.stat().st_mtime)
    for bundle in old[: max(len(old) - keep, 0)]:
        log.info("refresh: %s of a former turn is removed", bundle)
        shutil.rmtree(bundle, ignore_errors=True)
