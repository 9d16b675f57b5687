"""Whether a challenger takes the champion's place: by events that neither has learned from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

METRIC, DEPTH_METRIC = "ndcg@10", "recall@100"


@dataclass(frozen=True)
class Limits:
    """margin: how much of the champion's metrics a challenger may lack in the mean, since a few
    users tell no less; one whose interval lies below 0 is refused whatever it lacks. slice_margin:
    how much in a slice of users. least_coverage: share of the champion's coverage of the catalogue.
    min_users: fewer tell nothing.
    """

    margin: float = 0.03
    slice_margin: float = 0.25
    least_coverage: float = 0.5
    min_users: int = 50


@dataclass(frozen=True)
class Verdict:
    """promoted: whether the challenger is to be served. reasons: in words, one at least."""

    promoted: bool
    reasons: list[str]


def judge(metrics: Mapping[str, Any], limits: Limits) -> Verdict:
    """By the content of a metrics.json with a champion among its systems."""
    against = [*_against(metrics, limits)]
    difference = metrics["minus_champion"][METRIC]
    told = (
        f"{METRIC} {difference['mean']:+.4f} "
        f"({difference['low']:+.4f} to {difference['high']:+.4f}) on {metrics['n_users']:,} users"
    )
    return Verdict(not against, [told, *against])


def _against(metrics: Mapping[str, Any], limits: Limits) -> Iterator[str]:
    champion = metrics["baselines"]["champion"]
    served = metrics["served_stage"]
    if metrics["n_users"] < limits.min_users:
        yield f"fewer than {limits.min_users} users tell too little"
    for metric in (METRIC, DEPTH_METRIC):
        difference = metrics["minus_champion"][metric]
        if difference["high"] < 0:
            yield f"{metric} is worse, with its whole interval"
        elif difference["mean"] < -limits.margin * champion[metric]:
            yield f"{metric} is worse by more than {limits.margin:.0%}"
    for one in metrics["slices"]["history_length"]:
        before, now = one["champion"][METRIC], one[served][METRIC]
        if one["n_users"] >= limits.min_users and now < (1 - limits.slice_margin) * before:
            who = f"users with {one['label']} events"
            yield f"{METRIC} of {who} fell from {before:.4f} to {now:.4f}"
    covered = metrics["coverage@10"]
    if covered[served] < limits.least_coverage * covered["champion"]:
        yield f"coverage@10 fell from {covered['champion']:.1%} to {covered[served]:.1%}"
