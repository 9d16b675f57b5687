"""One turn of the loop: export, train, compare, promote."""

import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys.artifact import Artifact, load_artifact
from recsys.bundle import read_manifest, read_metrics
from recsys.core.locks import Lock
from recsys.errors import InputError
from recsys.export_events import Exported, export
from recsys.overrides import quoted
from recsys.refresh import promotion
from recsys.refresh.challenger import train_challenger
from recsys.refresh.leftovers import remove_leftovers, remove_old
from recsys.refresh.verdict import Limits, Verdict, judge
from recsys.schema import DISMISS, TIMESTAMP, TYPE, USER_ID
from recsys.text.none import NAME as NO_TEXT
from recsys.training.champion import is_new

log = logging.getLogger(__name__)

_LOCK_FILE, _WORK_FOLDER = ".refresh.lock", ".refresh"


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

    Whatever is killed when, ``latest`` names the champion or a challenger that has won, and the
    next turn does what is left and removes what was left behind.

    Raises:
        InputError: when another turn is going on, or a part of this one fails. The champion stays.
        StoreUnavailableError: when the database fails on the way.
    """
    root = plan.bundle.parent
    with _alone(root) as (folder, lock):
        promotion.go_on(root)
        served = plan.bundle.resolve()
        champion = load_artifact(served)
        exported = export(plan.store, served, folder)
        prefix = f"{exported.name}-refresh"
        remove_leftovers(root, f"{prefix}-")
        rows = pd.read_parquet(exported.files["interactions"])
        if TYPE in rows:  # what was dismissed is not learned from
            rows = rows[rows[TYPE] != DISMISS]
        fraction, users = held_out_share(rows, champion, plan.share)
        if users < plan.limits.min_users:
            why = f"{users:,} users have new events to compare on, and {plan.limits.min_users} must"
            verdict, bundle = Verdict(False, [why]), served
            promotion.add_line(root, _line(champion, None, verdict, None))
        else:
            overrides = _overrides(plan, champion, exported, fraction)
            bundle = train_challenger(root, prefix, overrides, plan.hours, lock.descriptors)
            metrics = read_metrics(bundle)
            verdict = judge(metrics, plan.limits)
            line = _line(champion, bundle, verdict, metrics["minus_champion"])
            if verdict.promoted:
                promotion.promote(bundle, line)
            else:
                promotion.add_line(root, line)
        now = bundle.name if verdict.promoted else f"still {champion.version}"
        log.info("refresh: served is %s: %s", now, "; ".join(verdict.reasons))
        promotion.settle(root, plan.server, plan.key)
        # The former champion stays for a turn: a server may not have been told yet.
        remove_old(root, f"{prefix}-", plan.keep, {bundle, served, plan.bundle.resolve()})
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
def _alone(root: Path) -> Iterator[tuple[Path, Lock]]:
    """An empty folder and a lock, for as long as no other turn goes on.

    The folder holds users' data, so it goes.
    """
    lock = Lock(root / _LOCK_FILE)
    if not lock.held:
        raise InputError(f"no other refresh of {root}", "one that is going on", "wait for its end")
    folder = root / _WORK_FOLDER
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        folder.mkdir(mode=0o700)
        yield folder, lock
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _overrides(plan: Plan, champion: Artifact, exported: Exported, fraction: float) -> list[str]:
    """What the challenger is trained on, and compared with."""
    tables = [f"data.{name}={_path(path)}" for name, path in exported.files.items()]
    tables += [f"data.{name}={value}" for name, value in exported.settings.items()]
    return [
        *("stage=all", "data=files", f"data.name={quoted(exported.name)}", *tables),
        *("data.split=global_time", f"data.test_fraction={fraction!r}"),
        f"champion={_path(plan.bundle.resolve())}",
        *(*_text_options(champion, plan.overrides), *plan.overrides),
    ]


def _text_options(champion: Artifact, overrides: Sequence[str]) -> list[str]:
    """What is served without texts goes on so, also once some new items have a title."""
    is_chosen = any(override.startswith("text=") for override in overrides)
    has_none = champion.manifest.get("text", {}).get("name") == NO_TEXT
    return ["text=none"] if has_none and not is_chosen else []


def _path(path: Path) -> str:
    return quoted(str(path.absolute()))


def _line(
    champion: Artifact, bundle: Path | None, verdict: Verdict, difference: Any
) -> dict[str, Any]:
    """For the history."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "champion": champion.version,
        "challenger": None if bundle is None else read_manifest(bundle)["version"],
        "promoted": verdict.promoted,
        "reasons": verdict.reasons,
        "minus_champion": difference,
    }
