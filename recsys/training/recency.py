"""How much later events of a history count more than earlier ones: chosen on validation events.

Where order tells something, as in a shop, the latest events say most about the next; where it does
not, as with films rated in one sitting, they say no more than others. Weights of the towers stay as
they are: only what a query is made of changes.
"""

import logging

from recsys.models.two_tower import TwoTowerEnsemble
from recsys.training.validation_scores import Scores, Validation

log = logging.getLogger(__name__)

HALF_LIVES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""In events, of what an event counts in a query; tried beside none at all."""


def choose_half_life(model: TwoTowerEnsemble, validation: Validation) -> float | None:
    """The half-life in events with the best NDCG@10; None where none is better for certain.

    Args:
        model: trained on the remaining events, in evaluation mode, on the CPU; it is left with the
            half-life that is chosen.
    """
    model.half_life = None
    times = validation.remaining.timestamps
    if not len(validation.users) or times.min() == times.max():  # there is no order
        return None
    without = best = validation.scores(model)
    chosen = None
    for half_life in HALF_LIVES:
        model.half_life = half_life
        found = validation.scores(model)
        is_best = _mean(found) > _mean(best)
        if is_best and validation.is_better(found, without, len(HALF_LIVES)):
            chosen, best = half_life, found
    model.half_life = chosen
    log.info(
        "stage 1: validation NDCG@10 %.4f with all events alike; %s",
        _mean(without),
        "no half-life is better for certain"
        if chosen is None
        else f"{_mean(best):.4f} with a half-life of {chosen:g} events",
    )
    return chosen


def _mean(scores: Scores) -> float:
    return float(scores.ndcg.mean())
