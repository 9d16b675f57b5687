"""Out-of-fold lists: no stage 1 sees what its lists are judged by."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recsys.data.histories import Histories
from recsys.index.builders import FlatIndexBuilder
from recsys.signals.list_signals import signal_names
from recsys.training.folds import (
    CandidateLists,
    assign_folds,
    candidate_lists,
    latest_held_out,
    out_of_fold_lists,
)
from recsys.training.stage1 import build_retriever, fit_two_tower
from tests.training.conftest import recipe, run

FOLDS = 4


def pairs(histories: Histories) -> set[tuple[int, int]]:
    return set(zip(histories.user_idx.tolist(), histories.item_idx.tolist(), strict=True))


def lists_of(
    histories: Histories, text, attributes, folder, **settings
) -> tuple[list, list[CandidateLists]]:
    """The events that each fold's stage 1 was given, and the lists."""
    seen = []

    def fit_retriever(train: Histories, fold: int):
        seen.append(pairs(train))
        model = fit_two_tower(recipe(), 1, train, text, attributes, run(folder / str(fold)))
        return build_retriever(model, train, FlatIndexBuilder().build, 100)

    usual = {"num_folds": FOLDS, "num_candidates": 10, "max_history": 5, "seed": 0}
    return seen, out_of_fold_lists(histories, text, fit_retriever, **{**usual, **settings})


@pytest.fixture(scope="module")
def given(planted, text, attributes, tmp_path_factory) -> tuple[list, list[CandidateLists]]:
    return lists_of(planted, text, attributes, tmp_path_factory.mktemp("folds"))


def test_every_event_is_held_out_once_and_each_user_evenly(planted) -> None:
    folds = assign_folds(planted, FOLDS, seed=0)
    assert set(folds.tolist()) == set(range(FOLDS))
    per_user = np.zeros((planted.num_users + 1, FOLDS), dtype=int)
    np.add.at(per_user, (planted.user_idx, folds), 1)
    assert (per_user[1:].max(axis=1) - per_user[1:].min(axis=1) <= 1).all()


def test_short_histories_do_not_all_fall_into_the_first_fold() -> None:
    users = np.arange(1, 201)
    single = Histories.from_indices(users, np.ones(200, np.int64), users, 200)
    counts = np.bincount(assign_folds(single, FOLDS, seed=0), minlength=FOLDS)
    assert counts.min() > 25


def test_a_folds_stage_1_never_sees_the_folds_events(planted, given) -> None:
    seen, _ = given
    folds = assign_folds(planted, FOLDS, seed=0)
    for fold, events in enumerate(seen):
        assert not events & pairs(planted.select(folds == fold))
        assert len(events) == (folds != fold).sum()


def test_folds_in_order_of_time_hold_out_the_latest_events_another_number_in_each(planted) -> None:
    # Some users have few events, one has a single one.
    few = np.array([1, 2, 3])[planted.user_idx % 3]
    some = planted.select((planted.user_idx > 9) | (planted.ranks_from_end < few))
    held_out = np.stack([latest_held_out(some, fold, FOLDS, 0) for fold in range(FOLDS)])
    for user in range(1, some.num_users + 1):
        own = held_out[:, some.offsets[user] : some.offsets[user + 1]]
        length = own.shape[1]
        numbers = own.sum(axis=1)
        assert sorted(numbers[numbers > 0]) == list(range(1, min(FOLDS + 1, length)))
        for number, row in zip(numbers, own, strict=True):
            assert not row[: length - number].any()
    # As many in one fold as in another, but for chance.
    assert held_out.sum(axis=1).max() < 1.5 * held_out.sum(axis=1).min()


def test_lists_in_order_of_time_are_of_what_came_before(
    planted, text, attributes, tmp_path
) -> None:
    seen, lists = lists_of(planted, text, attributes, tmp_path, in_order=True)
    assert len(lists) == FOLDS
    for fold, (events, made) in enumerate(zip(seen, lists, strict=True)):
        is_held_out = latest_held_out(planted, fold, FOLDS, 0)
        assert events == pairs(made.histories) == pairs(planted.select(~is_held_out))
        number = planted.select(is_held_out).lengths[made.user_idx]
        assert made.num_relevant.tolist() == number.tolist()


@pytest.mark.parametrize("length", [2, 3])
def test_of_users_with_few_events_alike_each_fold_leaves_some_all_they_have(length: int) -> None:
    """With less than two events of anybody, there would be no stage 1."""
    users = np.repeat(np.arange(1, 21), length)
    alike = Histories.from_indices(users, users, np.arange(len(users)), 20)
    for fold in range(8):
        assert alike.select(~latest_held_out(alike, fold, 8, 0)).lengths.max() == length


def test_of_many_users_fewer_folds_are_made_and_random_users_taken(
    planted, text, attributes, tmp_path
) -> None:
    """60 users: 120 lists are two folds' of them all, 50 are two folds' of 25."""

    def lists(most: int) -> list[CandidateLists]:
        return lists_of(planted, text, attributes, tmp_path, max_lists=most)[1]

    assert [len(fold) for fold in lists(120)] == [60, 60]
    first, second = lists(50)
    assert len(first) == len(second) == 25
    assert set(first.user_idx) != set(second.user_idx)
    assert (np.diff(first.user_idx) > 0).all()


def test_relevant_are_exactly_the_held_out_items_among_the_candidates(planted, given) -> None:
    folds = assign_folds(planted, FOLDS, seed=0)
    for fold, lists in enumerate(given[1]):
        held_out = pairs(planted.select(folds == fold))
        for row, user in enumerate(lists.user_idx.tolist()):
            candidates = lists.candidates[row].tolist()
            expected = [(user, item) in held_out for item in candidates]
            assert lists.relevance[row].tolist() == expected
            assert not {(user, item) for item in candidates} & pairs(lists.histories)
            assert int(lists.num_relevant[row]) == sum(u == user for u, _ in held_out)


def test_what_is_wanted_are_the_held_out_events_weights_most_first(
    planted, text, attributes, tmp_path
) -> None:
    strong = replace(planted, weights=1.0 + planted.item_idx.astype(np.float32) % 3)
    folds = assign_folds(strong, FOLDS, seed=0)
    lists = lists_of(strong, text, attributes, tmp_path)[1]
    for fold, made in enumerate(lists):
        held_out = strong.select(folds == fold)
        for user, wanted in zip(made.user_idx.tolist(), made.wanted.numpy(), strict=True):
            own = held_out.relative_weights[held_out.user_idx == user]
            assert wanted[: len(own)].tolist() == sorted(own.tolist(), reverse=True)
            assert not wanted[len(own) :].any()


def test_every_fold_has_a_list_of_each_user_with_events_in_and_outside_of_it(
    planted, given
) -> None:
    folds = assign_folds(planted, FOLDS, seed=0)
    for fold, lists in enumerate(given[1]):
        inside = set(planted.user_idx[folds == fold].tolist())
        outside = set(planted.user_idx[folds != fold].tolist())
        assert lists.user_idx.tolist() == sorted(inside & outside)


def test_folds_without_events_have_no_lists(text, attributes, tmp_path) -> None:
    users = np.repeat([1, 2], 3)
    few = Histories.from_indices(users, np.arange(1, 7), np.arange(6), 2)
    fitted = []

    def fit_retriever(train: Histories, fold: int):
        fitted.append(fold)
        model = fit_two_tower(recipe(), 1, train, text, attributes, run(tmp_path / str(fold)))
        return build_retriever(model, train, FlatIndexBuilder().build, 100)

    lists = out_of_fold_lists(
        few, text, fit_retriever, num_folds=20, num_candidates=5, max_history=5, seed=0
    )
    assert fitted == sorted(set(assign_folds(few, 20, seed=0).tolist()))
    assert len(lists) == len(fitted) < 20
    assert sum(int(fold.num_relevant.sum()) for fold in lists) == len(few)


def test_a_candidates_popularity_counts_the_events_outside_the_fold(given) -> None:
    for lists in given[1]:
        signals = lists.all_signals()
        assert not torch.isnan(signals).any()
        assert signals.shape[:2] == lists.candidates.shape
        counts = lists.histories.item_counts(lists.candidates.max())
        column = signal_names(1).index("log_popularity")
        expected = torch.from_numpy(counts)[lists.candidates].float().log1p()
        torch.testing.assert_close(signals[:, :, column], expected)


def test_gains_are_the_weights_of_held_out_events(planted, given) -> None:
    for lists in given[1]:
        torch.testing.assert_close(lists.gains, lists.relevance.float())
    weights = np.where(planted.item_idx % 2, 1.0, 3.0).astype(np.float32)
    folds = assign_folds(planted, FOLDS, seed=0)
    weighted = replace(planted, weights=weights).select(folds == 0)
    retriever = SimpleNamespace(
        model=SimpleNamespace(num_items=48),
        retrieve=lambda history, number: SimpleNamespace(
            item_idx=torch.arange(1, number + 1).expand(len(history.mask), -1),
            tower_scores=torch.zeros(len(history.mask), number, 1),
        ),
    )
    users = np.flatnonzero(weighted.lengths)
    rest = planted.select(folds != 0)
    lists = candidate_lists(rest, weighted, users, retriever, None, 48)  # type: ignore[arg-type]
    assert torch.equal(lists.gains > 0, lists.relevance)
    mean = float(weighted.weights.mean())
    by_item = torch.where(lists.candidates % 2 == 1, 1.0, 3.0) / mean
    torch.testing.assert_close(lists.gains[lists.relevance], by_item[lists.relevance])
