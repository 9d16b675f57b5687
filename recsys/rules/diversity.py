"""Lists of items that are less like each other."""

import numpy as np
from numpy.typing import NDArray
from pyversity import diversify

from recsys.rules.rules import Method

_EXHAUSTED = 1e-6
"""Below this share of its own variance, an item is as good as a mixture of those chosen before."""
_MAX_EXPONENT = 40.0
"""Squares of e to this power are within float32."""


def diversified(
    scores: NDArray[np.float32],
    vectors: NDArray[np.float32],
    num_chosen: int,
    diversity: float,
    method: Method,
) -> NDArray[np.int64]:
    """Positions [num_chosen] of candidates, in the order that trades score for difference.

    ``mmr``: maximal marginal relevance (Carbonell & Goldstein 1998). Each next item has the highest
    ``(1 - diversity) * relevance - diversity * (largest cosine to an item chosen before)``.
    Relevance is the score scaled to 0..1 over these candidates, the range of the cosine: logits of
    different models then mean the same by one value of ``diversity``.

    ``dpp``: greedy inference of a determinantal point process (Chen et al. 2018) with kernel
    ``w_i w_j cos(i, j)``, where ``w = exp((1 - diversity) / diversity * z)`` and ``z`` is the
    score's distance from the mean in standard deviations. When no candidate differs from a mixture
    of those chosen, the rest follow by score.

    The first item is the best by score. Equal items come in the order in which they were given.

    Args:
        scores: float32 [M], finite, best first. vectors: float32 [M, T], L2-normalised.
        diversity: above 0, up to 1. method: ``mmr`` or ``dpp``.
    """
    if method == "mmr":
        height = float(np.ptp(scores))
        relevance = (scores - scores.min()) / (height or 1.0)
        chosen = diversify(vectors, relevance, num_chosen, "mmr", diversity, normalize=False)
        return chosen.indices.astype(np.int64)
    spread = scores.std() + np.finfo(np.float32).eps
    deviations = (scores - scores.mean()) / spread
    farthest = max(float(np.abs(deviations).max()), 1.0)
    # pyversity's own exponent, (1 - diversity) * scale, does not grow as the dial nears 0, where
    # the order by score must come out.
    exponent = min((1 - diversity) / diversity, _MAX_EXPONENT / farthest)
    scale = exponent / (1 - diversity) if diversity < 1 else 1.0
    with np.errstate(over="ignore", invalid="ignore"):  # of what is cut off below
        chosen = diversify(vectors, scores, num_chosen, "dpp", diversity, scale=scale)
    indices = chosen.indices.astype(np.int64)
    weights = np.exp(2 * exponent * deviations[indices])
    used_up = chosen.selection_scores < _EXHAUSTED * weights
    first = indices[: int(used_up.argmax()) if used_up.any() else len(indices)]
    rest = np.setdiff1d(np.arange(len(scores)), first)
    return np.concatenate([first, rest])[:num_chosen]
