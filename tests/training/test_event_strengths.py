"""Whether stronger events count more in queries is read off validation events."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.data.histories import Histories
from recsys.data.prepare import hold_out_random
from recsys.index.builders import FlatIndexBuilder
from recsys.models.history_weights import EventCounting
from recsys.training.event_counting import choose_counting
from recsys.training.stage1 import build_retriever, fit_two_tower, search
from recsys.training.stage2 import RerankingRecipe, encoder_config
from recsys.training.validation_scores import Validation

from .conftest import recipe, run

NUM_ITEMS, NUM_USERS, GROUP = 120, 300, 10
STRONG, LENGTH = 6, 20
TEXT, ATTRIBUTES = torch.zeros(NUM_ITEMS + 1, 4), torch.zeros(NUM_ITEMS + 1, 1)


def log_of(strengths_tell: bool) -> Histories:
    """Users have some items of one group, and more than twice as many others by chance.

    Those of the group weigh ten times as much, or as many events that are drawn.
    """
    rng = np.random.default_rng(0)
    rows = []
    for user in range(1, NUM_USERS + 1):
        liked = np.arange(GROUP) + user % (NUM_ITEMS // GROUP) * GROUP + 1
        others = np.setdiff1d(np.arange(1, NUM_ITEMS + 1), liked)
        drawn = rng.permutation(liked)[:STRONG], rng.permutation(others)[: LENGTH - STRONG]
        rows.append(np.concatenate(drawn))
    is_strong = np.tile(np.arange(LENGTH) < STRONG, (NUM_USERS, 1))
    if not strengths_tell:
        is_strong = rng.permuted(is_strong, axis=1)
    weights = np.where(is_strong, 10.0, 1.0).astype(np.float32)
    users = np.arange(1, NUM_USERS + 1).repeat(LENGTH)
    times = rng.integers(0, 10**6, len(users))
    return Histories.from_indices(
        users, np.concatenate(rows), times, NUM_USERS, weights=weights.ravel()
    )


@pytest.mark.parametrize("strengths_tell", [True, False])
def test_strengths_count_where_they_tell_a_taste(strengths_tell: bool, tmp_path) -> None:
    remaining, held_out = hold_out_random(log_of(strengths_tell), 3, 0)
    model = fit_two_tower(recipe(), 20, remaining, TEXT, ATTRIBUTES, run(tmp_path))
    counting = choose_counting(model, Validation.of(remaining, held_out, 100, 0))
    assert (counting.strength_exponent > 0) == strengths_tell
    assert model.counting == counting


def test_where_all_weigh_alike_nothing_is_tried(tmp_path) -> None:
    log = log_of(True)
    number = len(log)
    log = replace(log, weights=np.full(number, 3.0, np.float32), timestamps=np.zeros(number, int))
    remaining, held_out = hold_out_random(log, 3, 0)
    model = fit_two_tower(recipe(), 1, remaining, TEXT, ATTRIBUTES, run(tmp_path))
    validation = Validation.of(remaining, held_out, 100, 0)
    object.__setattr__(validation, "scores", None)
    assert choose_counting(model, validation) == EventCounting()


def test_what_is_found_says_the_exponent(tmp_path) -> None:
    found = search(recipe(epochs=20), log_of(True), TEXT, ATTRIBUTES, run(tmp_path))
    assert found.counting.strength_exponent > 0


def test_held_out_events_count_as_they_weigh(tmp_path) -> None:
    """As if they were alike, where they are."""
    remaining, held_out = hold_out_random(log_of(True), 3, 0)
    model = fit_two_tower(recipe(), 20, remaining, TEXT, ATTRIBUTES, run(tmp_path))

    def scores(weights: np.ndarray) -> list[float]:
        asked = replace(held_out, weights=weights.astype(np.float32))
        found = Validation.of(remaining, asked, 100, 0).scores(model)
        return [float(values.mean()) for values in found]

    alike = scores(np.ones(len(held_out)))
    assert scores(np.full(len(held_out), 7.0)) == alike
    nearly = np.ones(len(held_out))
    nearly[0] += 1e-6
    assert scores(nearly) == pytest.approx(alike, abs=1e-6)
    # What the model finds are the strong ones.
    assert scores(held_out.weights)[0] > 1.2 * alike[0]


def test_stage_2_reads_strengths_where_events_differ_in_them() -> None:
    shape = {"dim": 8, "num_heads": 2}
    recipe = RerankingRecipe(shape, 8, 4, 20, 8, 1, 0.01, 0.0, 0.1, 0)
    weighed = log_of(True)
    alike = replace(weighed, weights=np.ones(len(weighed), np.float32))
    assert encoder_config(recipe, weighed) == {**shape, "strengths": True}
    assert encoder_config(recipe, alike) == shape
    without = replace(recipe, cross_encoder={**shape, "strengths": False})
    assert encoder_config(without, weighed) == without.cross_encoder


def test_a_query_is_the_same_by_the_model_and_as_it_is_served(tmp_path) -> None:
    log = log_of(True)
    inputs = (recipe(), 2, log, TEXT, ATTRIBUTES, run(tmp_path))
    model = fit_two_tower(*inputs, counting=EventCounting(3.0, 0.5))
    assert model.counting.strength_exponent == 0.5
    retriever = build_retriever(model, log, FlatIndexBuilder().build, 10)
    users = np.arange(1, 20)
    batch, whole = log.pad(users, 10), log.pad(users)
    with torch.inference_mode():
        expected = model.query(batch.item_idx, batch.mask, batch.context, batch.weights)
        alike = model.query(batch.item_idx, batch.mask, batch.context)
    torch.testing.assert_close(retriever.encode(whole), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(alike, expected, rtol=1e-2, atol=1e-2)
