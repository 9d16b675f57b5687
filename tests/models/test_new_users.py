"""The blend for users whom training has not seen, by hand and by brute force."""

import math

import numpy as np
import pytest
import torch

from recsys.data.histories import Histories
from recsys.models.new_users import NewUserBlend, NewUserGate, NewUserSettings, opening_lift


def test_the_share_of_popularity_is_a_logistic_function() -> None:
    gate = NewUserGate(bias=1.0, slope=2.0, fading=0.5)
    shares = gate.shares(torch.tensor([0.0, -0.5, 0.0]), torch.tensor([1, 1, 4]))
    logits = [1.0, 0.0, 1.0 - 0.5 * math.log(4)]
    assert shares.tolist() == pytest.approx([1 / (1 + math.exp(-x)) for x in logits])


def test_settings_survive_the_manifest() -> None:
    for settings in (
        NewUserSettings(NewUserGate(-11.2, 16.0, 0.0), 30.0),
        NewUserSettings(None, None),
    ):
        assert NewUserSettings.from_manifest(settings.to_manifest()) == settings


def test_items_that_histories_open_with_have_a_lift() -> None:
    """Ten users open with items 1 and 2."""
    users = np.repeat(np.arange(1, 11), 5)
    items = np.tile([1, 2, 3, 4, 5], 10)
    histories = Histories.from_indices(users, items, np.arange(50), 10)
    lift = opening_lift(histories, 6)
    # The first two of five events are an opening; five average events are added to each item's ten.
    assert lift[[1, 2]].tolist() == pytest.approx([math.log((10 + 2) / 15 / 0.4)] * 2)
    assert lift[3] == pytest.approx(math.log((0 + 2) / 15 / 0.4))
    assert lift[[0, 6]].tolist() == pytest.approx([0, 0])


def test_an_opening_is_no_longer_than_twenty_events() -> None:
    histories = Histories.from_indices(
        np.ones(90, np.int64), np.arange(1, 91), np.arange(90), num_users=1
    )
    lift = opening_lift(histories, 90)
    assert (lift[1:21] > 0).all()
    assert (lift[21:] < 0).all()


def test_without_events_no_item_has_a_lift() -> None:
    none = np.zeros(0, np.int64)
    assert not opening_lift(Histories.from_indices(none, none, none, 3), 4).any()


def test_blended_scores_are_in_units_of_stage_1() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(50, 4, generator=generator)
    query = torch.randn(4, generator=generator)
    blend = NewUserBlend(NewUserGate(0.0, 0.0, 0.0), np.zeros(50, np.float32), embeddings)
    scores = embeddings[1:] @ query
    popularity = torch.randn(49, generator=generator)
    found = blend.scores(query, scores, popularity, 0.25)
    expected = 0.75 * scores + 0.25 * (scores.mean() + scores.std() * popularity)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(blend.scores(query, scores, popularity, 0.0), scores)


def test_the_share_is_that_of_the_mean_lift_of_the_history() -> None:
    lift = np.array([0.0, 1.0, -1.0], np.float32)
    blend = NewUserBlend(NewUserGate(0.0, 4.0, 1.0), lift, torch.ones(3, 2))
    assert blend.share(torch.tensor([1])) == pytest.approx(1 / (1 + math.exp(-4)))
    assert blend.share(torch.tensor([1, 2])) == pytest.approx(1 / (1 + 2))
    # Item 3 came after training: nothing is known of it.
    assert blend.share(torch.tensor([1, 3])) == pytest.approx(1 / (1 + 2 * math.exp(-2)))
    assert blend.share(torch.zeros(0, dtype=torch.long)) == 0
