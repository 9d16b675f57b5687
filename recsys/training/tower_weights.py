"""How much each tower of the ensemble counts: chosen on validation events.

Of dense data with texts the towers find different things, and their scores add up well as they
are. Of sparse data a tower that is learned by gradient steps may be so far behind one in closed
form that its half of the sum does harm.
"""

import logging
from dataclasses import replace

from recsys.models.two_tower import TwoTowerEnsemble
from recsys.training.validation_scores import LEAST_RECALL, Validation

log = logging.getLogger(__name__)

WEIGHTS = (1.0, 0.5, 0.25, 0.1, 0.0)
"""Of each tower but the first, beside which they stand."""
_MOST_USERS = 2_000


def choose_weights(model: TwoTowerEnsemble, validation: Validation) -> tuple[float, ...]:
    """The weights with the best NDCG@10 of those that keep recall@100, one tower after the other.

    Args:
        model: trained on the remaining events, in evaluation mode, on the CPU. It is left with the
            weights that are chosen.
    """
    validation = replace(validation, users=validation.users[:_MOST_USERS])
    best = (1.0,) * len(model.members)
    if not len(validation.users):
        return best
    for tower in range(1, len(best)):
        found = []
        for weight in WEIGHTS:
            model.weights = (*best[:tower], weight, *best[tower + 1 :])
            found.append((validation.scores(model), model.weights))
        enough = LEAST_RECALL * max(float(scores.recall.mean()) for scores, _ in found)
        keeping = [one for one in found if float(one[0].recall.mean()) >= enough]
        scores, best = max(keeping, key=lambda one: float(one[0].ndcg.mean()))
        log.info(
            "stage 1: weights of the towers %s: validation NDCG@10 %.4f, recall@100 %.4f "
            "(all alike: %.4f, %.4f)",
            ", ".join(f"{weight:g}" for weight in best),
            *(float(values.mean()) for one in (scores, found[0][0]) for values in one),
        )
    model.weights = best
    return best
