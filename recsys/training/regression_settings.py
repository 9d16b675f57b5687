"""Settings of the tower that is fitted in closed form, chosen on validation events.

They are in units of events, and how much a ridge penalty, a sitting or a text is worth in events is
a matter of the data: on sparse reviews a text weight that suits films drowns what users say. A fit
costs a solution of the normal equations, whose counts are made once.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from recsys.core.coordinate_search import climb
from recsys.errors import InputError
from recsys.features import ContentFeatures
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.training.item_regression import ItemRegression
from recsys.training.retrieval import Objective
from recsys.training.validation_scores import Scores, Validation

log = logging.getLogger(__name__)

RegressionSettings = Mapping[str, float]
"""Names of ``ItemRegression``'s settings -> values."""

SEARCHED = ("content_weight", "l2", "session_weight")
FACTORS = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0, 16.0)
"""Of what is configured; settings a factor of 2 apart differ less than noise."""


def choose_regression(
    model: TwoTowerEnsemble,
    objectives: Sequence[Objective | ItemRegression],
    content: ContentFeatures,
    validation: Validation,
    max_trials: int,
) -> RegressionSettings | None:
    """The settings with which the whole ensemble has the best NDCG@10.

    None where there is no such tower, or nothing is better for certain than what is configured.

    Args:
        model: trained on the remaining events, in evaluation mode, on the CPU. Its tower is left
            with what is chosen. objectives: of its towers.
        max_trials: fits at the most.
    """
    fitted = [
        (tower, goal)
        for tower, goal in zip(model.members, objectives, strict=True)
        if isinstance(goal, ItemRegression)
    ]
    if not fitted or max_trials < 1 or not len(validation.users):
        return None
    tower, configured = fitted[0]
    counts = configured.counts(validation.remaining, content)
    start = {name: float(getattr(configured, name)) for name in SEARCHED}
    known: dict[tuple[float, ...], Scores] = {}

    def fit(settings: RegressionSettings) -> None:
        _with(configured, settings).solve(tower, counts)

    def value(settings: RegressionSettings) -> float:
        try:
            fit(settings)
        except InputError:  # so small a penalty leaves the equations without a solution
            return -math.inf
        found = known[tuple(settings.values())] = validation.scores(model)
        return float(found.ndcg.mean())

    space = {name: [factor * at for factor in FACTORS] for name, at in start.items() if at > 0}
    best, reached, trials = climb(value, space, {name: start[name] for name in space}, max_trials)
    before, found = (known[tuple(one[name] for name in space)] for one in (start, best))
    is_chosen = validation.is_better(found, before)
    fit(best if is_chosen else start)
    log.info(
        "stage 1: validation NDCG@10 %.4f with the linear tower's settings as configured; %s "
        "(%d trials)",
        float(before.ndcg.mean()),
        f"{reached:.4f} with {told(best)}" if is_chosen else "none are better for certain",
        trials,
    )
    return best if is_chosen else None


def with_regression(
    objectives: Sequence[Objective | ItemRegression], settings: RegressionSettings | None
) -> list[Objective | ItemRegression]:
    """The objectives with settings that ``choose_regression`` has chosen."""
    return [
        _with(goal, settings) if settings and isinstance(goal, ItemRegression) else goal
        for goal in objectives
    ]


def told(settings: RegressionSettings) -> str:
    """For a reader."""
    return ", ".join(f"{name} {value:g}" for name, value in settings.items())


def _with(goal: ItemRegression, settings: RegressionSettings) -> ItemRegression:
    return replace(goal, **settings)  # type: ignore[arg-type]  # mypy thinks of ``max_items``
