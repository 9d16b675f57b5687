"""Whether one ensemble ranks validation events better than another: for certain, or by chance."""

import numpy as np
import torch

from recsys.data.histories import Histories
from recsys.training.validation_scores import Scores, Validation


def judge() -> Validation:
    nothing = np.zeros(0, np.int64)
    log = Histories.from_indices(nothing, nothing, nothing, 1)
    return Validation(log, log, nothing, 10)


def scores(ndcg: torch.Tensor, recall: float = 0.5) -> Scores:
    return Scores(ndcg, torch.full_like(ndcg, recall))


NOISE = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NOISE = (NOISE - NOISE.mean()) / NOISE.std()
ZEROS = torch.zeros(400, dtype=torch.float64)


def test_the_more_were_tried_the_more_the_best_must_gain() -> None:
    # 2.4 standard errors: one in 120 that are no better.
    found = scores(NOISE / 10 + 2.4 * 0.1 / 20)
    assert judge().is_better(found, scores(ZEROS), tried=1)
    assert not judge().is_better(found, scores(ZEROS), tried=12)


def test_what_finds_less_is_not_better() -> None:
    assert not judge().is_better(
        scores(ZEROS + 1.0, recall=0.4), scores(ZEROS, recall=0.5), tried=1
    )


def test_of_one_user_nothing_can_be_told() -> None:
    assert not judge().is_better(scores(ZEROS[:1] + 1.0), scores(ZEROS[:1]), tried=1)
