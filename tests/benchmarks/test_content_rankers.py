import numpy as np
import pytest

from benchmarks.content_rankers import (
    Among,
    Random,
    fit_ridge,
    fit_similarity,
    genres_and_year,
    join_blocks,
    map_factors,
)
from recsys.baselines import MatrixFactors, Popularity
from recsys.data.histories import Histories


def histories(pairs, num_users):
    users, items = np.array(pairs, dtype=np.int64).T
    return Histories.from_indices(users, items, np.arange(len(users)), num_users)


def test_ridge_equals_its_closed_form_with_a_free_intercept():
    """The intercept is one more column whose weight is not penalised."""
    rng = np.random.default_rng(0)
    features = rng.normal(2.0, 1.0, (30, 4)).astype(np.float32)
    targets = rng.normal(size=(30, 3)).astype(np.float32)
    x = np.concatenate([features, np.ones((30, 1))], axis=1)
    for penalty, ridge in zip((0.1, 7.0), fit_ridge(features, targets, [0.1, 7.0]), strict=True):
        solution = np.linalg.solve(x.T @ x + np.diag([penalty] * 4 + [0.0]), x.T @ targets)
        np.testing.assert_allclose(ridge.weights, solution[:4], atol=1e-5)
        np.testing.assert_allclose(ridge.predict(features), x @ solution, atol=1e-5)


def test_a_planted_linear_map_gives_unseen_items_their_factors():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(41, 5)).astype(np.float32)
    true_factors = (features @ rng.normal(size=(5, 3)) + 1.0).astype(np.float32)
    train = histories([(1, item) for item in range(1, 31)], 1)
    known = true_factors.copy()
    known[31:] = 99.0  # What a factorisation says of items without events must not matter.
    users = rng.normal(size=(2, 3)).astype(np.float32)
    mapped = map_factors(train, MatrixFactors(users, known), [features], [1e-6])[0]
    np.testing.assert_allclose(mapped.item_factors[1:], true_factors[1:], atol=1e-3)
    np.testing.assert_array_equal(mapped.item_factors[:31], known[:31])
    np.testing.assert_array_equal(mapped.user_factors, users)


def test_unseen_items_have_no_part_in_what_is_fitted():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(11, 4)).astype(np.float32)
    factors = MatrixFactors(np.ones((2, 2), np.float32), rng.random((11, 2), dtype=np.float32))
    train = histories([(1, item) for item in range(1, 9)], 1)
    other = features.copy()
    other[10] *= 1000
    for first, second in (
        (map_factors(train, factors, [f], [1.0])[0].item_factors[9] for f in (features, other)),
        (fit_similarity(train, f).vectors[9] for f in (features, other)),
    ):
        np.testing.assert_array_equal(first, second)


def test_blocks_weigh_the_same_whatever_their_width_and_scale():
    rng = np.random.default_rng(0)
    blocks = [rng.normal(scale=5.0, size=(50, 2)), rng.normal(size=(50, 30)), np.zeros((50, 1))]
    seen = np.arange(50) < 40
    joined = join_blocks([block.astype(np.float32) for block in blocks], seen)
    variances = joined[seen].var(axis=0)
    assert variances[:2].sum() == pytest.approx(1.0, abs=1e-5)
    assert variances[2:32].sum() == pytest.approx(1.0, abs=1e-5)
    assert variances[32] == 0


def test_similarity_is_the_mean_cosine_to_the_history_after_centring():
    rng = np.random.default_rng(0)
    features = rng.normal(3.0, 1.0, (7, 4)).astype(np.float32)
    train = histories([(1, 1), (1, 2), (1, 4), (2, 3)], 2)
    centred = features - features[[1, 2, 3, 4]].mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    scores = fit_similarity(train, features).scores(np.array([1]))[0]
    assert scores[0] == -np.inf
    np.testing.assert_allclose(scores[1:], (unit[[1, 2, 4]] @ unit.T).mean(0)[1:], atol=1e-6)


def test_an_item_or_a_user_without_anything_known_scores_zero():
    features = np.zeros((4, 2), np.float32)
    scores = fit_similarity(histories([(1, 1)], 2), features).scores(np.array([1, 2]))
    assert (scores[:, 1:] == 0).all()


def test_among_leaves_all_others_out():
    allowed = np.array([False, True, False, True])
    ranker = Popularity(np.arange(4, dtype=np.float32))
    scores = Among(ranker, allowed).scores(np.array([1, 2]))
    assert scores.tolist() == [[-np.inf, 1.0, -np.inf, 3.0]] * 2


def test_random_differs_by_user_and_seed_and_repeats():
    users = np.array([1, 2])
    first, again, other = (Random(30, seed).scores(users) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    orders = {tuple(row.argsort()) for row in (*first, *other)}
    assert len(orders) == 4
    np.testing.assert_array_equal(Random(30, 0).scores(users[1:]), first[1:])


def test_genres_and_years_come_from_the_catalogue(data):
    genres, with_year = genres_and_year(data.catalog)
    assert genres.shape == (61, 3)
    assert genres[1].tolist() == [0, 1, 0]  # Comedy, Drama, War
    assert with_year[0, -1] == with_year[1, -1] == 0  # padding; no year known
    assert (np.diff(with_year[2:, -1]) > 0).all()
    assert with_year[1:, -1].mean() == pytest.approx(0, abs=1e-5)
