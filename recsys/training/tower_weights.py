"""How much each tower of the ensemble counts: chosen on validation events.

Of dense data with texts the towers find different things, and their scores add up well as they
are. Of sparse data either may be so far behind the other that its half of the sum does harm: one
that is learned by gradient steps where there is little to learn from, one in closed form where few
items go together often enough to be counted.
"""

import logging
import math
from collections.abc import Sequence

from recsys.models.two_tower import TwoTowerEnsemble
from recsys.training.validation_scores import LEAST_RECALL, Scores, Validation

log = logging.getLogger(__name__)

WEIGHTS = (1.0, 0.7, 1.4, 0.5, 2.0, 0.25, 4.0, 0.1, 8.0, 16.0, 0.0)
"""Of each tower but the first, beside which they stand; those nearest to the first come first."""


def choose_weights(model: TwoTowerEnsemble, validation: Validation) -> tuple[float, ...]:
    """The weights that validation asks for, one tower after the other: see ``_least_change``.

    Args:
        model: trained on the remaining events, in evaluation mode, on the CPU. It is left with the
            weights that are chosen.
    """
    best = (1.0,) * len(model.members)
    if not len(validation.users):
        return best
    for tower in range(1, len(best)):
        tried = [(*best[:tower], weight, *best[tower + 1 :]) for weight in WEIGHTS]
        found = []
        for weights in tried:
            model.weights = weights
            found.append(validation.scores(model))
        chosen = _least_change(found)
        best = tried[chosen]
        log.info(
            "stage 1: weights of the towers %s: validation NDCG@10 %.4f, recall@100 %.4f "
            "(all alike: %.4f, %.4f)",
            ", ".join(f"{weight:g}" for weight in best),
            *(float(values.mean()) for one in (found[chosen], found[0]) for values in one),
        )
    model.weights = best
    return best


def _least_change(found: Sequence[Scores]) -> int:
    """The first whose NDCG@10 is within a standard error of the best one's, of those that keep
    recall@100 (the one-standard-error rule of Breiman et al., 1984): neighbours hardly differ, and
    a change should be one that can be told from chance.
    """
    enough = LEAST_RECALL * max(float(scores.recall.mean()) for scores in found)
    keeping = [at for at, scores in enumerate(found) if float(scores.recall.mean()) >= enough]
    best = max(keeping, key=lambda at: float(found[at].ndcg.mean()))
    for at in keeping:
        lost = found[best].ndcg - found[at].ndcg
        if float(lost.mean()) <= float(lost.std(correction=0)) / math.sqrt(len(lost)):
            return at
    return best
