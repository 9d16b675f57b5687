"""How much more events of more weight count in a query: chosen on validation events.

A purchase may tell more of a taste than a view, or less of what comes next, since who has bought a
thing does not want another. Weights of the towers stay as they are: only what a query is made of
changes.
"""

import logging

from recsys.models.two_tower import TwoTowerEnsemble
from recsys.training.validation_scores import Validation

log = logging.getLogger(__name__)

EXPONENTS = (0.25, 0.5, 1.0)
"""Of the weights of events; tried beside 0, with which all count alike."""


def choose_strength_exponent(model: TwoTowerEnsemble, validation: Validation) -> float:
    """The exponent with the best NDCG@10; 0 where none is better for certain.

    Args:
        model: trained on the remaining events, in evaluation mode, on the CPU, with the half-life
            that was chosen; it is left with the exponent that is chosen.
    """
    model.strength_exponent = 0.0
    if not len(validation.users) or validation.remaining.are_alike:
        return 0.0
    without = best = validation.scores(model)
    chosen = 0.0
    for exponent in EXPONENTS:
        model.strength_exponent = exponent
        found = validation.scores(model)
        is_best = float(found.ndcg.mean()) > float(best.ndcg.mean())
        if is_best and validation.is_better(found, without, len(EXPONENTS)):
            chosen, best = exponent, found
    model.strength_exponent = chosen
    log.info(
        "stage 1: validation NDCG@10 %.4f with events of all weights alike in queries; %s",
        float(without.ndcg.mean()),
        f"{float(best.ndcg.mean()):.4f} with an exponent of {chosen:g}"
        if chosen
        else "no exponent is better for certain",
    )
    return chosen
