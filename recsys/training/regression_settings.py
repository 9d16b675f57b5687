"""Settings of the tower that is fitted in closed form, chosen on validation events.

They are in units of events, and how much a ridge penalty, a sitting or a text is worth in events is
a matter of the data: on sparse reviews a text weight that suits films drowns what users say. A fit
costs a solution of the normal equations, whose counts are made once.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace

from recsys.core.coordinate_search import climb
from recsys.errors import InputError
from recsys.features import ContentFeatures
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.training.item_regression import CHOSEN, ItemRegression
from recsys.training.retrieval_recipe import RetrievalRecipe
from recsys.training.validation_scores import Scores, Validation

log = logging.getLogger(__name__)

Settings = Mapping[str, float]

FACTORS = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0, 16.0)
"""Of what is configured; settings a factor of 2 apart differ less than noise."""


def choose_regression(
    recipe: RetrievalRecipe,
    model: TwoTowerEnsemble,
    content: ContentFeatures,
    validation: Validation,
) -> RetrievalRecipe:
    """With the settings of its first ``ItemRegression`` that give the ensemble the best NDCG@10.

    The recipe itself where it has none, or where nothing is better for certain than what is
    configured.

    Args:
        recipe: by which the model was trained on the remaining events. model: in evaluation mode,
            on the CPU. Its tower is left with what is chosen.
    """
    places = [at for at, goal in enumerate(recipe.objectives) if isinstance(goal, ItemRegression)]
    if not places or recipe.max_trials < 1 or not len(validation.users):
        return recipe
    configured, tower = recipe.objectives[places[0]], model.members[places[0]]
    assert isinstance(configured, ItemRegression)
    counts = configured.counts(validation.remaining, content)
    start = {name: float(getattr(configured, name)) for name in CHOSEN}
    known: dict[tuple[float, ...], Scores] = {}

    def with_settings(settings: Settings) -> ItemRegression:
        return configured.with_settings({**start, **settings}, "correct retrieval.towers")

    def value(settings: Settings) -> float:
        try:
            with_settings(settings).solve(tower, counts)
        except InputError:  # so small a penalty leaves the equations without a solution
            return -math.inf
        found = known[tuple(settings.values())] = validation.scores(model)
        return float(found.ndcg.mean())

    without = [] if counts.session.nnz else ["session_weight"]
    space = {
        name: [factor * at for factor in FACTORS]
        for name, at in start.items()
        if at > 0 and name not in without
    }
    first = {name: start[name] for name in space}
    best, reached, trials = climb(value, space, first, recipe.max_trials)
    before, found = known[tuple(first.values())], known[tuple(best.values())]
    is_chosen = validation.is_better(found, before, trials)
    chosen = with_settings(best) if is_chosen else configured
    chosen.solve(tower, counts)
    log.info(
        "stage 1: validation NDCG@10 %.4f with the linear tower's settings as configured; %s "
        "(%d trials)",
        float(before.ndcg.mean()),
        f"{reached:.4f} with {told(best)}" if is_chosen else "none are better for certain",
        trials,
    )
    objectives = list(recipe.objectives)
    objectives[places[0]] = chosen
    return replace(recipe, objectives=objectives)


def told(settings: Settings) -> str:
    """For a reader."""
    return ", ".join(f"{name} {value:g}" for name, value in settings.items())
