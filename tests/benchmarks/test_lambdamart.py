"""LambdaMART learns what a signal says, and re-ranks candidates without touching padding."""

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.lambdamart import PARAMETERS, fit_lambdamart, rerank
from recsys.data.histories import Histories
from recsys.training.folds import CandidateLists, build_extractor

NUM_LISTS, NUM_CANDIDATES, NUM_SIGNALS = 60, 12, 4
SMALL = {**PARAMETERS, "min_data_in_leaf": 5, "feature_fraction": 1.0}


@pytest.fixture(scope="module")
def lists() -> CandidateLists:
    """Relevant are the candidates with a large third signal; the other signals are noise."""
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(NUM_LISTS, NUM_CANDIDATES, NUM_SIGNALS, generator=generator)
    candidates = torch.arange(1, NUM_CANDIDATES + 1).repeat(NUM_LISTS, 1)
    candidates[:, -2:] = 0
    relevance = (signals[:, :, 2] > 0.8) & (candidates > 0)
    users = np.arange(1, NUM_LISTS + 1)
    histories = Histories.from_indices(users, np.ones(NUM_LISTS, np.int64), users, NUM_LISTS)
    extractor = build_extractor(histories, torch.zeros(NUM_CANDIDATES + 1, 2))
    num_relevant = relevance.sum(dim=1)
    return CandidateLists(histories, extractor, users, candidates, signals, relevance, num_relevant)


@pytest.fixture(scope="module")
def reranked(lists) -> Tensor:
    booster = fit_lambdamart([lists], seed=0, parameters=SMALL)
    generator = torch.Generator().manual_seed(1)
    unseen = torch.randn(30, NUM_CANDIDATES, NUM_SIGNALS, generator=generator)
    candidates = lists.candidates[:30]
    ranked = rerank(booster, candidates, unseen)
    places = unseen[:, :, 2].masked_fill(candidates == 0, -9.0)
    return torch.stack([ranked, places.argsort(dim=1, descending=True) + 1])


def test_it_ranks_new_lists_by_the_signal_that_matters(reranked) -> None:
    ranked, by_signal = reranked
    assert (ranked[:, 0] == by_signal[:, 0]).float().mean() > 0.3
    top3 = (ranked[:, :1] == by_signal[:, :3]).any(dim=1)
    assert top3.float().mean() > 0.9


def test_a_ranking_is_a_permutation_of_the_candidates_with_padding_last(reranked) -> None:
    ranked = reranked[0]
    real = ranked[:, :-2].sort(dim=1).values
    assert (real == torch.arange(1, NUM_CANDIDATES - 1)).all()
    assert (ranked[:, -2:] == 0).all()


def test_the_same_seed_gives_the_same_trees(lists) -> None:
    first, second = (fit_lambdamart([lists], seed=3, parameters=SMALL) for _ in range(2))
    assert first.model_to_string() == second.model_to_string()
