"""What a trial may see."""

import numpy as np
import pytest
import torch

from benchmarks.ablation_variants import NUM_HELD_OUT
from benchmarks.tuning.rows import TrainingRows


def pairs(histories) -> set[tuple[int, int]]:
    return set(zip(histories.user_idx.tolist(), histories.item_idx.tolist(), strict=True))


def test_test_rows_are_refused_and_can_be_dropped(data):
    assert len(data.split.test)
    with pytest.raises(ValueError, match="expected no test rows; found 200"):
        TrainingRows(data)
    rows = TrainingRows.of(data)
    assert len(rows.data.split.test) == 0
    assert rows.data.train is data.train
    assert len(data.split.test) == 200  # the caller's own are left alone


def test_a_draw_divides_each_users_training_events(data):
    train = data.train
    for draw in TrainingRows.of(data).draws(3, seed=0):
        assert pairs(draw.train) | pairs(draw.held_out) == pairs(train)
        assert not pairs(draw.train) & pairs(draw.held_out)
        assert (draw.held_out.lengths[1:] == NUM_HELD_OUT).all()


def test_no_draw_holds_a_test_row(data):
    test = data.split.test
    held_out = set(
        zip(
            data.users.encode(test["user_id"]).tolist(),
            data.items.encode(test["item_id"]).tolist(),
            strict=True,
        )
    )
    for draw in TrainingRows.of(data).draws(2, seed=0):
        assert not held_out & (pairs(draw.train) | pairs(draw.held_out))


def test_draws_differ_and_repeat_with_their_seed(data):
    rows = TrainingRows.of(data)
    prints = [draw.fingerprint for draw in rows.draws(3, seed=0)]
    assert len(set(prints)) == 3
    assert [draw.fingerprint for draw in rows.draws(3, seed=0)] == prints
    # More draws are the same ones and others: a study's first draw does not depend on how many.
    assert [draw.fingerprint for draw in rows.draws(4, seed=0)][:3] == prints
    assert rows.draws(1, seed=1)[0].fingerprint not in prints


def test_a_ranking_of_the_held_out_events_is_perfect(data):
    draw = TrainingRows.of(data).draws(1, seed=0)[0]
    targets = draw.targets
    assert (targets.user_idx == np.arange(1, 41)).all()
    ideal = draw.held_out.pad(targets.user_idx).item_idx
    assert draw.metric(ideal, "ndcg@10") == pytest.approx(1.0)
    assert draw.metric(ideal, "recall@5") == pytest.approx(0.5)
    assert draw.metric(torch.zeros_like(ideal), "ndcg@10") == 0.0
