"""What events count in a query, by their order and by their weight: chosen on validation events.

Where order tells something, as in a shop, the latest events say most about the next; where it does
not, as with films rated in one sitting, they say no more than others. A purchase may tell more of a
taste than a view, or less of what comes next, since who has bought a thing does not want another.
Weights of the towers stay as they are: only what a query is made of changes.
"""

import logging
from collections.abc import Sequence

from recsys.models.history_weights import ALL_ALIKE, EventCounting
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.training.validation_scores import Scores, Validation

log = logging.getLogger(__name__)

HALF_LIVES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""In events; tried beside none at all."""
EXPONENTS = (0.25, 0.5, 1.0)
"""Of the weights of events; tried beside 0, with which all count alike."""


def choose_counting(model: TwoTowerEnsemble, validation: Validation) -> EventCounting:
    """What has the best NDCG@10: first a half-life, then an exponent; neither where it is not
    better for certain.

    Args:
        model: trained on the remaining events, in evaluation mode, on the CPU; it is left with what
            is chosen.
    """
    model.counting = chosen = ALL_ALIKE
    if not len(validation.users):
        return chosen
    if validation.remaining.has_order:
        chosen = _best(model, validation, [EventCounting(one) for one in HALF_LIVES])
    if not validation.remaining.are_alike:
        chosen = _best(model, validation, [EventCounting(chosen.half_life, n) for n in EXPONENTS])
    return chosen


def _best(
    model: TwoTowerEnsemble, validation: Validation, others: Sequence[EventCounting]
) -> EventCounting:
    """The model's own, or the best of the others that are better for certain; the model's then."""
    chosen = model.counting
    before = best = validation.scores(model)
    for other in others:
        model.counting = other
        found = validation.scores(model)
        if _mean(found) > _mean(best) and validation.is_better(found, before, len(others)):
            chosen, best = other, found
    log.info(
        "stage 1: validation NDCG@10 %.4f, events counting with %s; %.4f before",
        _mean(best),
        chosen,
        _mean(before),
    )
    model.counting = chosen
    return chosen


def _mean(scores: Scores) -> float:
    return float(scores.ndcg.mean())
