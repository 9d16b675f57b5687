from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.cold_user_draw import NUM_GIVEN, ColdUsers, draw_cold_users
from benchmarks.cold_users import (
    HISTORY_LENGTHS,
    fold_in,
    measure_baselines,
    measure_recommender,
    measure_systems,
)
from recsys.baselines import fit_ease, fit_popularity, rank
from recsys.errors import InputError
from tests.benchmarks.conftest import FirstItems


@pytest.fixture(scope="module")
def draw(data) -> ColdUsers:
    return draw_cold_users(data, seed=0)


def unseen_ids(draw: ColdUsers) -> list[str]:
    return sorted(draw.data.split.test["user_id"].unique())


def test_unseen_users_have_no_training_rows(data, draw):
    assert len(unseen_ids(draw)) == 4
    assert not draw.data.split.train["user_id"].isin(unseen_ids(draw)).any()
    assert not any(user_id in draw.data.users for user_id in unseen_ids(draw))
    others = data.split.train[~data.split.train["user_id"].isin(unseen_ids(draw))]
    assert len(draw.data.train) == len(others)


def test_relevant_are_all_interactions_after_the_first_twenty(data, draw):
    rows = pd.concat([data.split.train, data.split.test], ignore_index=True)
    for row, user_id in enumerate(unseen_ids(draw)):
        own = rows[rows["user_id"] == user_id].sort_values("timestamp", kind="stable")
        in_order = data.items.encode(own["item_id"])
        expected = set(in_order[NUM_GIVEN:].tolist())
        assert set(draw.targets.items[draw.targets.rows == row].tolist()) == expected
        assert draw.targets.num_relevant[row] == len(expected) == 10
        for length in HISTORY_LENGTHS:
            given = draw.given(length)
            start, end = given.offsets[row + 1 : row + 3]
            assert given.item_idx[start:end].tolist() == in_order[:length].tolist()


def test_users_with_few_interactions_are_never_drawn(data):
    """u1 has 24 interactions left, one fewer than a list can be judged by."""
    train = data.split.train
    drop = train.index[train["user_id"] == "u1"][:6]
    short = replace(data, split=replace(data.split, train=train.drop(index=drop)))
    for seed in range(12):
        assert "u1" not in unseen_ids(draw_cold_users(short, seed))


def test_data_without_long_histories_is_refused(data):
    short = replace(data.split, train=data.split.train[:0])
    with pytest.raises(InputError, match="users with 25 interactions"):
        draw_cold_users(replace(data, split=short), seed=0)


def test_folding_in_a_training_user_gives_eases_own_scores(draw):
    train = draw.data.train
    ease = fit_ease(train, 60, regularization=5.0)
    folded = fold_in(ease, train, fit_popularity(train, 60))
    users = np.array([3, 1, 36])
    np.testing.assert_array_equal(folded.scores(users), ease.scores(users))


def test_without_a_history_ease_answers_with_popularity(draw):
    popularity = fit_popularity(draw.data.train, 60)
    folded = fold_in(fit_ease(draw.data.train, 60), draw.given(0), popularity)
    users = draw.targets.user_idx
    np.testing.assert_array_equal(folded.scores(users), popularity.scores(users))


def test_no_list_holds_any_of_the_first_twenty_at_any_length(draw):
    popularity = fit_popularity(draw.data.train, 60)
    ranked = rank(popularity, draw.given(NUM_GIVEN), draw.targets.user_idx, 60)
    for row in range(4):
        start, end = draw.given(NUM_GIVEN).offsets[row + 1 : row + 3]
        assert not set(ranked[row]) & set(draw.given(NUM_GIVEN).item_idx[start:end].tolist())


def test_the_recommender_gets_anonymous_histories_oldest_first(draw):
    recommender = FirstItems(draw.data.items.ids.tolist())
    curve = measure_recommender(recommender, draw, rerank=False)
    assert list(curve) == ["0", "1", "3", "5", "10", "20"]
    requests = np.array(recommender.requests, dtype=object).reshape(len(HISTORY_LENGTHS), 4)
    for length, row in zip(HISTORY_LENGTHS, requests, strict=True):
        for request, longest in zip(row, requests[-1], strict=True):
            assert request.user_id is None
            assert list(request.history) == list(longest.history)[:length]
            assert list(request.exclude) == list(longest.history)
    # The stand-in ignores the history, so a curve that moved would show another candidate set.
    assert all(figures == curve["0"] for figures in curve.values())


def test_curves_of_all_systems_have_all_lengths_and_metrics(draw):
    systems = measure_baselines(draw, fit_ease(draw.data.train, 60), seed=0)
    assert systems["ease"]["0"] == systems["popularity"]["0"]
    assert len({tuple(figures.items()) for figures in systems["popularity"].values()}) == 1

    recommender = FirstItems(draw.data.items.ids.tolist())
    for stage2, stages in ((False, ["stage1"]), (True, ["stage1", "stage2"])):
        curves = measure_systems(draw, fit_ease(draw.data.train, 60), recommender, 0, stage2=stage2)
        assert list(curves) == ["popularity", "ease", *stages]
        assert list(curves["stage1"]["20"]) == ["recall@10", "ndcg@10", "recall@100"]


def test_a_random_order_keeps_users_and_interactions(draw):
    shuffled = draw.shuffled(seed=3)
    users = draw.histories.user_idx
    assert (shuffled.histories.offsets == draw.histories.offsets).all()
    assert (shuffled.histories.item_idx != draw.histories.item_idx).any()
    for user in draw.targets.user_idx:
        own, again = (set(h.item_idx[users == user]) for h in (draw.histories, shuffled.histories))
        assert own == again
    given = shuffled.given(NUM_GIVEN)
    pairs = set(zip(given.user_idx - 1, given.item_idx, strict=True))
    targets = set(zip(shuffled.targets.rows.tolist(), shuffled.targets.items.tolist(), strict=True))
    assert len(targets) == 40
    assert not pairs & targets


def test_an_untrained_bundle_answers_unseen_histories(untrained_recommender):
    """The served path itself: popularity without a history, stage 1 with one."""
    from recsys.request import Request

    requests = [Request(top_k=5, history=history) for history in ([], [1001])]
    sources = [a.source for a in untrained_recommender.recommend(requests, rerank=False)]
    assert sources == ["popular", "retrieved"]
