"""LambdaMART on planted lists: one signal tells what is relevant, stage 1's score does not."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import lambdamart
from benchmarks.lambdamart import (
    LambdaMart,
    _dataset,
    fit_lambdamart,
    rank_lambdamart,
    score_lambdamart,
)
from recsys.errors import InputError
from recsys.metrics import ndcg_at_k
from recsys.signals.list_signals import signal_names
from recsys.training.folds import CandidateLists, out_of_fold_lists

NUM_USERS, NUM_CANDIDATES, NUM_REAL, NUM_RELEVANT = 40, 12, 10, 3
NAMES = signal_names(1)
TELLING = NAMES.index("session_sum")
SMALL = {"min_data_in_leaf": 5, "lambda_l2": 0.1, "learning_rate": 0.1, "feature_fraction": 1.0}


@dataclass(frozen=True)
class PlantedLists(CandidateLists):
    """Lists whose signals are given."""

    planted: torch.Tensor

    def all_signals(self) -> torch.Tensor:
        return self.planted


def planted_fold(seed: int) -> PlantedLists:
    """The last two places of each list are padding, with signals that would rank them first."""
    generator = torch.Generator().manual_seed(seed)
    signals = torch.randn(NUM_USERS, NUM_CANDIDATES, len(NAMES), generator=generator)
    signals[:, NUM_REAL:] = 100.0
    best = signals[:, :NUM_REAL, TELLING].topk(NUM_RELEVANT, dim=1).indices
    relevance = torch.zeros(NUM_USERS, NUM_CANDIDATES, dtype=torch.bool).scatter(1, best, True)
    candidates = torch.arange(1, NUM_CANDIDATES + 1).repeat(NUM_USERS, 1)
    candidates[:, NUM_REAL:] = 0
    num_relevant = torch.full((NUM_USERS,), NUM_RELEVANT)
    users = np.arange(1, NUM_USERS + 1)
    gains = relevance.float()
    wanted = torch.ones(NUM_USERS, NUM_RELEVANT)
    lists = (None, None, users, candidates, None, relevance, num_relevant, gains, wanted)
    return PlantedLists(*lists, signals)


def ndcg(lists: CandidateLists, scores: torch.Tensor) -> float:
    hits = lists.relevance.gather(1, scores.argsort(dim=1, descending=True))
    return float(ndcg_at_k(hits, lists.num_relevant, 10).mean())


@pytest.fixture(scope="module")
def model() -> LambdaMart:
    return fit_lambdamart([planted_fold(seed) for seed in range(4)], 0, SMALL)


def test_the_signal_that_tells_relevance_decides_the_order(model):
    unseen = planted_fold(9)
    scores = score_lambdamart(model, unseen.candidates, unseen.planted)
    by_stage1 = unseen.planted[:, :, 0].masked_fill(unseen.candidates == 0, -torch.inf)
    assert ndcg(unseen, by_stage1) < 0.7
    assert ndcg(unseen, scores) > 0.9
    gains = dict(
        zip(
            model.booster.feature_name(),
            model.booster.feature_importance("gain").tolist(),
            strict=True,
        )
    )
    assert max(gains, key=gains.get) == "session_sum"


def test_padding_scores_below_everything_and_teaches_nothing(model):
    unseen = planted_fold(9)
    scores = score_lambdamart(model, unseen.candidates, unseen.planted)
    assert torch.equal(scores == -torch.inf, unseen.candidates == 0)
    other = [planted_fold(seed) for seed in range(4)]
    for fold in other:
        fold.planted[:, NUM_REAL:] = -7.0
    refitted = fit_lambdamart(other, 0, SMALL)
    assert torch.equal(score_lambdamart(refitted, unseen.candidates, unseen.planted), scores)


def test_lists_without_candidates_are_left_out():
    folds = [planted_fold(seed) for seed in range(4)]
    folds[0].candidates[3] = 0
    folds[0].relevance[3] = False
    fitted = fit_lambdamart(folds, 0, SMALL)
    unseen = planted_fold(9)
    scores = score_lambdamart(fitted, unseen.candidates, unseen.planted)
    assert ndcg(unseen, scores) > 0.9


def test_where_signals_tell_nothing_no_tree_is_grown_and_the_order_is_stage_1s():
    folds = [planted_fold(seed) for seed in range(4)]
    for fold in folds:
        best = fold.planted[:, :NUM_REAL, 0].topk(NUM_RELEVANT, dim=1).indices
        fold.relevance.zero_().scatter_(1, best, True)
    fitted = fit_lambdamart(folds, 0, SMALL)
    assert fitted.booster.num_trees() == 0
    unseen = planted_fold(9)
    scores = score_lambdamart(fitted, unseen.candidates, unseen.planted)[:, :NUM_REAL]
    assert torch.equal(scores.argsort(dim=1), unseen.planted[:, :NUM_REAL, 0].argsort(dim=1))


def test_the_final_trees_learn_from_every_list(monkeypatch):
    sizes = []

    def watched(lists, *arguments):
        sizes.append(sum(len(fold) for fold in lists))
        return _dataset(lists, *arguments)

    monkeypatch.setattr(lambdamart, "_dataset", watched)
    fit_lambdamart([planted_fold(seed) for seed in range(8)], 0, SMALL | {"max_rounds": 1})
    assert sizes == [6 * NUM_USERS] * 4 + [8 * NUM_USERS]


def test_rounds_are_chosen_on_lists_of_users_that_the_trees_know(monkeypatch, data):
    seen = []
    monkeypatch.setattr(lambdamart, "_dataset", lambda lists, *_: seen.append(lists))
    monkeypatch.setattr(lambdamart.lgb, "Booster", lambda *_: None)
    num_items = len(data.items)
    retriever = SimpleNamespace(
        retrieve=lambda history, k: SimpleNamespace(
            item_idx=torch.arange(1, k + 1).expand(len(history.item_idx), k),
            tower_scores=torch.ones(len(history.item_idx), k, 1),
        ),
        model=SimpleNamespace(num_items=num_items),
    )
    folds = out_of_fold_lists(
        data.train,
        torch.zeros(num_items + 1, 2),
        lambda train, fold: retriever,
        num_folds=8,
        num_candidates=10,
        max_history=5,
        seed=0,
    )
    fit_lambdamart(folds, 0, {"max_rounds": 0})
    *searched, final = seen
    assert len(final) == 8
    for kept in searched:
        known = np.concatenate([fold.user_idx for fold in kept])
        aside = [fold for fold in folds if not any(fold is other for other in kept)]
        assert len(aside) == 2
        assert all(np.isin(fold.user_idx, known).all() for fold in aside)


def test_stage_1_must_count():
    with pytest.raises(InputError, match="a positive stage1_weight"):
        fit_lambdamart([planted_fold(0), planted_fold(1)], 0, {"stage1_weight": 0.0})


def test_the_same_seed_gives_the_same_trees(model):
    folds = [planted_fold(seed) for seed in range(4)]
    again = fit_lambdamart(folds, 0, SMALL)
    assert again.booster.model_to_string() == model.booster.model_to_string()


def test_a_single_fold_is_refused():
    with pytest.raises(InputError, match="at least two folds"):
        fit_lambdamart([planted_fold(0)], 0, SMALL)


def test_ranked_lists_are_the_candidates_of_the_served_stage_1_in_another_order(
    model, untrained_recommender
):
    retriever = untrained_recommender.retriever
    extractor = untrained_recommender.artifact.stage2.extractor
    histories = untrained_recommender.histories.log
    users = np.arange(1, 91)
    ranked = rank_lambdamart(model, retriever, extractor, histories, users, 12, 12)
    found = retriever.retrieve(histories.pad(users), 12).item_idx
    assert torch.equal(ranked.sort(dim=1).values, found.sort(dim=1).values)
    assert not torch.equal(ranked, found)
    first = rank_lambdamart(model, retriever, extractor, histories, users, 12, 5)
    assert torch.equal(first, ranked[:, :5])


def test_longer_lists_than_there_are_items_end_in_empty_slots(model, untrained_recommender):
    retriever = untrained_recommender.retriever
    extractor = untrained_recommender.artifact.stage2.extractor
    histories = untrained_recommender.histories.log
    ranked = rank_lambdamart(model, retriever, extractor, histories, np.array([1, 2]), 12, 40)
    assert ranked.shape == (2, 40)
    # Each user has 4 of the 30 items in training.
    assert (ranked[:, :26] > 0).all()
    assert (ranked[:, 26:] == 0).all()
    seen = histories.pad(np.array([1, 2])).item_idx
    assert not torch.isin(ranked[0], seen[0]).any()


def test_signals_of_another_width_get_names_of_their_own():
    narrow = [
        replace(fold, planted=fold.planted[:, :, [0, TELLING]])
        for fold in (planted_fold(0), planted_fold(1))
    ]
    fitted = fit_lambdamart(narrow, 0, SMALL)
    assert fitted.booster.feature_name() == ["signal_0", "signal_1"]
