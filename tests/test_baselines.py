import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from recsys import baselines
from recsys.baselines import fit_als, fit_ease, fit_popularity, rank
from recsys.data.histories import Histories
from recsys.training.composed_config import baseline_fits

SIZE = 24
USERS = np.arange(1, SIZE + 1)
CONFIG = Path(__file__).parents[1] / "configs" / "baselines" / "default.yaml"

FITS = {
    "popularity": fit_popularity,
    "als": partial(fit_als, factors=4, regularization=0.1, seed=3),
    "ease": partial(fit_ease, regularization=1.0),
}


def histories(pairs: list[tuple[int, int]], num_users: int) -> Histories:
    users, items = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return Histories.from_indices(users, items, np.arange(len(users)), num_users)


@pytest.fixture(scope="module")
def checkerboard() -> Histories:
    """Even users have the even items, odd users the odd ones; each lacks the item of its number."""
    pairs = [(u, i) for u in USERS for i in USERS if (u - i) % 2 == 0 and u != i]
    return histories(pairs, SIZE)


@pytest.mark.parametrize("name", ["als", "ease"])
def test_the_missing_item_of_a_checkerboard_comes_first(checkerboard, name):
    fitted = FITS[name](checkerboard, SIZE)
    assert rank(fitted, checkerboard, USERS, k=1)[:, 0].tolist() == USERS.tolist()


def test_popularity_ranks_by_training_count():
    train = histories([(1, 2), (2, 2), (3, 2), (1, 3), (2, 3), (1, 1)], num_users=4)
    fitted = fit_popularity(train, 4)
    assert rank(fitted, train, np.array([4]), k=4).tolist() == [[2, 3, 1, 4]]


def test_als_factors_lean_on_what_alike_users_have():
    """Users 1-9 share items 1-4 and users 10-18 items 5-8; user 1 lacks item 4."""
    pairs = [(u, i) for u in range(1, 10) for i in range(1, 5) if (u, i) != (1, 4)]
    pairs += [(u, i) for u in range(10, 19) for i in range(5, 9)]
    fitted = fit_als(histories(pairs, 18), 8, factors=2, regularization=0.1)
    scores = fitted.scores(np.array([1]))[0]
    assert scores[4] > scores[5:].max() + 0.5


def test_ease_equals_the_constrained_least_squares_solution():
    """Column j of the weights solves a ridge regression of item j on all the other items."""
    rng = np.random.default_rng(0)
    dense = rng.random((30, 6)) < 0.4
    train = histories([(u + 1, i + 1) for u, i in np.argwhere(dense)], 30)
    weights = fit_ease(train, 6, regularization=2.0).weights[1:, 1:]
    x = dense.astype(float)
    for j in range(6):
        others = [i for i in range(6) if i != j]
        a = x[:, others]
        expected = np.linalg.solve(a.T @ a + 2.0 * np.eye(5), a.T @ x[:, j])
        np.testing.assert_allclose(weights[others, j], expected, atol=1e-5)
        assert weights[j, j] == 0


def test_repeated_events_count_once_for_als_and_ease():
    pairs = [(1, 1), (1, 2), (2, 2), (3, 1), (3, 3)]
    for name in ("als", "ease"):
        once = FITS[name](histories(pairs, 3), 3)
        twice = FITS[name](histories([*pairs, (1, 1), (3, 3)], 3), 3)
        users = np.array([1, 2, 3])
        np.testing.assert_array_equal(once.scores(users), twice.scores(users))


@pytest.mark.parametrize("name", FITS)
class TestEveryBaseline:
    def test_scores_cover_the_catalogue_and_never_padding(self, checkerboard, name):
        users = np.array([3, 1, 3])
        scores = FITS[name](checkerboard, SIZE).scores(users)
        assert scores.shape == (3, SIZE + 1)
        assert scores.dtype == np.float32
        assert (scores[:, 0] == -np.inf).all()
        assert np.isfinite(scores[:, 1:]).all()
        np.testing.assert_array_equal(scores[0], scores[2])

    def test_fitting_twice_gives_the_same_scores(self, checkerboard, name):
        first, second = (FITS[name](checkerboard, SIZE).scores(USERS) for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_fitting_leaves_the_histories_as_they_were(self, name):
        train = histories([(1, 3), (1, 1), (1, 2), (1, 3)], 1)
        before = train.item_idx.copy()
        FITS[name](train, 3)
        assert train.item_idx.tolist() == before.tolist()

    def test_training_items_are_never_ranked(self, checkerboard, name):
        ranked = rank(FITS[name](checkerboard, SIZE), checkerboard, USERS, k=SIZE)
        for row, user in enumerate(USERS):
            begin, end = checkerboard.offsets[user : user + 2]
            assert not set(ranked[row]) & set(checkerboard.item_idx[begin:end].tolist())

    def test_slots_beyond_the_items_left_are_empty(self, checkerboard, name):
        ranked = rank(FITS[name](checkerboard, SIZE), checkerboard, USERS, k=SIZE + 5)
        assert ranked.shape == (SIZE, SIZE + 5)
        left = SIZE - checkerboard.lengths[1:]
        assert ((ranked > 0).sum(axis=1) == left).all()
        for row, count in enumerate(left):
            assert len(set(ranked[row, :count].tolist())) == count

    def test_the_chunks_of_users_do_not_change_the_ranking(self, checkerboard, name, monkeypatch):
        fitted = FITS[name](checkerboard, SIZE)
        users = USERS[::-1]
        whole = rank(fitted, checkerboard, users, k=5)
        monkeypatch.setattr(baselines, "_SCORES_PER_CHUNK", 5 * (SIZE + 1))
        np.testing.assert_array_equal(rank(fitted, checkerboard, users, k=5), whole)

    def test_a_user_without_history_gets_a_full_list(self, name):
        train = histories([(1, 1), (1, 2), (2, 1)], num_users=3)
        assert (rank(FITS[name](train, 5), train, np.array([3]), k=5) > 0).all()


def test_ties_are_broken_by_the_seed_and_not_by_the_item_index():
    train = histories([(1, i) for i in range(1, 41)], num_users=2)
    fitted = fit_popularity(train, 40)
    zero, one = (rank(fitted, train, np.array([2]), k=40, seed=seed)[0] for seed in (0, 1))
    assert sorted(zero) == list(range(1, 41))
    assert zero.tolist() != one.tolist()
    assert zero.tolist() != sorted(zero)


def test_no_users_give_no_rows(checkerboard):
    fitted = fit_popularity(checkerboard, SIZE)
    assert rank(fitted, checkerboard, np.array([], dtype=np.int64), k=3).shape == (0, 3)


def test_another_seed_gives_other_als_factors(checkerboard):
    first, second = (fit_als(checkerboard, SIZE, seed=seed).item_factors for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_ease_refuses_a_catalogue_over_its_limit(checkerboard):
    with pytest.raises(baselines.TooManyItemsError, match="at most 23 items for EASE; found 24"):
        fit_ease(checkerboard, SIZE, max_items=23)


def test_a_baseline_too_large_is_left_out_and_the_others_are_fitted(checkerboard, caplog):
    fits = {**FITS, "ease": partial(fit_ease, max_items=10)}
    with caplog.at_level(logging.WARNING):
        fitted = baselines.fit_all(fits, checkerboard, SIZE)
    assert list(fitted) == ["popularity", "als"]
    assert "baseline ease left out" in caplog.text


def test_the_shipped_configuration_fits_all_three(checkerboard):
    config = OmegaConf.load(CONFIG)
    fitted = baselines.fit_all(baseline_fits(config), checkerboard, SIZE)
    assert list(fitted) == ["popularity", "als", "ease"]
    assert fitted["als"].item_factors.shape == (SIZE + 1, config.als.factors)
