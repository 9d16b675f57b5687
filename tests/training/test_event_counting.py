"""Whether later events count more is read off validation events, and asked of queries alone."""

import numpy as np
import pytest
import torch

from recsys.data.histories import Histories
from recsys.data.validation import hold_out_like
from recsys.index.builders import FlatIndexBuilder
from recsys.models.history_weights import EventCounting
from recsys.training.event_counting import choose_counting
from recsys.training.stage1 import build_retriever, fit_two_tower, search
from recsys.training.validation_scores import Validation

from .conftest import recipe, run

NUM_ITEMS, NUM_USERS, LENGTH = 60, 300, 12


def drifting(in_order: bool) -> Histories:
    """Users whose taste moves to another tenth of the catalogue in the middle of their history.

    Out of order, the same events come in any order.
    """
    rng = np.random.default_rng(0)
    groups = rng.integers(0, NUM_ITEMS // 6, (NUM_USERS, 2)).repeat(LENGTH // 2, axis=1)
    within = np.concatenate(
        [np.stack([rng.permutation(6) for _ in range(NUM_USERS)]) for _ in range(2)], axis=1
    )
    items = 1 + 6 * groups + within
    if not in_order:
        items = rng.permuted(items, axis=1)
    users = np.arange(1, NUM_USERS + 1).repeat(LENGTH)
    times = 1_000_000 + np.tile(np.arange(LENGTH) * 86_400, NUM_USERS)
    return Histories.from_indices(users, items.ravel(), times, NUM_USERS)


@pytest.mark.parametrize("in_order", [True, False])
def test_a_half_life_is_chosen_where_order_tells_something(in_order: bool, tmp_path) -> None:
    log = drifting(in_order)
    remaining, held_out = hold_out_like("leave_last", log, 2, 0.1, 0)
    text = torch.zeros(NUM_ITEMS + 1, 4)
    attributes = torch.zeros(NUM_ITEMS + 1, 1)
    model = fit_two_tower(recipe(), 20, remaining, text, attributes, run(tmp_path))
    half_life = choose_counting(model, Validation.of(remaining, held_out, 100, 0)).half_life
    if in_order:
        assert half_life is not None
        assert half_life <= 8
    else:
        assert half_life is None


def test_where_time_holds_out_hardly_anybody_random_events_choose_the_epochs(
    text, attributes, tmp_path
) -> None:
    """Users come one after the other, so the latest events are of users with no others."""
    users = np.arange(1, 41).repeat(10)
    items = np.tile(np.arange(1, 11), 40)
    log = Histories.from_indices(users, items, 1_000_000 + np.arange(len(users)), 40)
    assert hold_out_like("global_time", log, 2, 0.1, 0)[1].lengths.sum() == 0
    found = search(recipe(epochs=2), log, text, attributes, run(tmp_path), "global_time")
    assert found.epochs >= 1


def test_logs_without_times_have_no_half_life(planted, text, attributes, tmp_path) -> None:
    model = fit_two_tower(recipe(), 1, planted, text, attributes, run(tmp_path))
    users = planted.user_idx
    timeless = Histories.from_indices(
        users, planted.item_idx, np.zeros(len(users), np.int64), planted.num_users, planted.context
    )
    remaining, held_out = hold_out_like("random", timeless, 2, 0.1, 0)
    validation = Validation.of(remaining, held_out, 100, 0)
    assert choose_counting(model, validation).half_life is None


def test_a_query_is_the_same_by_the_model_and_as_it_is_served(
    planted, text, attributes, tmp_path
) -> None:
    model = fit_two_tower(
        recipe(), 2, planted, text, attributes, run(tmp_path), counting=EventCounting(3.0)
    )
    retriever = build_retriever(model, planted, FlatIndexBuilder().build, 100)
    batch = planted.pad(np.arange(1, 20))
    with torch.inference_mode():
        expected = model.query(batch.item_idx, batch.mask, batch.context)
    torch.testing.assert_close(retriever.encode(batch), expected, rtol=1e-4, atol=1e-4)
    model.counting = EventCounting()
    with torch.inference_mode():
        alike = model.query(batch.item_idx, batch.mask, batch.context)
    assert not torch.allclose(alike, expected, rtol=1e-2, atol=1e-2)
