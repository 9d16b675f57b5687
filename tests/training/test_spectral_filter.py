"""A linear tower of leading directions: the decomposition, what is chosen, what it is served as."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.artifact import build_two_tower
from recsys.data.histories import Histories
from recsys.data.prepare import hold_out_random
from recsys.data.validation import hold_out_like
from recsys.errors import InputError
from recsys.features import content_features
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.training.leading_directions import leading_directions
from recsys.training.spectral_filter import SITTING, SpectralFilter
from tests.training.conftest import NUM_GROUPS, NUM_ITEMS, NUM_USERS

MODEL = {
    "dim": 16,
    "use_content": False,
    "use_bias": False,
    "hidden_dim": 0,
    "dropout": 0.0,
    "id_dropout": 0.0,
    "length_exponent": 0.0,
}
USERS = np.arange(1, NUM_USERS + 1)
EXACT = SpectralFilter(0.5, 0.5, 0.0, directions=16, power=2.0, tilt=0.5)


def fitted(
    objective: SpectralFilter, train: Histories, text: Tensor, attributes: Tensor
) -> TwoTowerEnsemble:
    counts = torch.from_numpy(train.item_counts(NUM_ITEMS))
    content = content_features(text, attributes, counts)
    ensemble = build_two_tower([MODEL], content, train.context.shape[1]).eval()
    objective.fit(ensemble.members[0], train, content)
    return ensemble


def scores(ensemble: TwoTowerEnsemble, train: Histories) -> Tensor:
    history = train.pad(USERS)
    with torch.inference_mode():
        query = ensemble.query(history.item_idx, history.mask, history.context)
        return query @ ensemble.all_candidates().T


def test_directions_are_those_of_the_singular_value_decomposition() -> None:
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((40, 30)) * (rng.random((40, 30)) < 0.3)
    values, vectors = leading_directions(csr_matrix(dense.astype(np.float32)), 5)
    expected, right = np.linalg.svd(dense)[1:]
    np.testing.assert_allclose(values, expected[:5], rtol=1e-3)
    np.testing.assert_allclose(np.abs((vectors * right[:5].T).sum(axis=0)), 1.0, atol=1e-2)


def test_directions_without_a_share_in_the_matrix_are_left_out() -> None:
    dense = np.outer(np.arange(1, 7), np.arange(5)).astype(np.float32)
    values, vectors = leading_directions(csr_matrix(dense), 4)
    assert values.shape == (1,)
    assert vectors.shape == (5, 1)
    assert values[0] == pytest.approx(np.linalg.norm(dense), rel=1e-5)


def test_with_all_directions_and_squared_values_it_is_the_filter_of_the_graph(text, attributes):
    """r D_i^-1/2 A'A D_i^1/2, where A = D_u^-1/2 R D_i^-1/2 (GF-CF's linear filter)."""
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((NUM_USERS, 12)) < 0.4)
    train = Histories.from_indices(users + 1, items + 1, np.arange(len(users)), NUM_USERS)
    found = scores(fitted(EXACT, train, text, attributes), train)[:, 1:13].double()
    matrix = torch.from_numpy(train.matrix(NUM_ITEMS).toarray()[1:, 1:13]).double()
    by_user, by_item = matrix.sum(1).clamp(min=1.0), matrix.sum(0)
    normalised = matrix / by_user[:, None].sqrt() / by_item.sqrt()
    expected = matrix / by_item.sqrt() @ (normalised.T @ normalised) * by_item.sqrt()
    largest = torch.linalg.svdvals(normalised)[0] ** 2
    torch.testing.assert_close(found, expected / largest, atol=1e-4, rtol=1e-3)


def test_what_is_left_open_is_chosen_on_validation_events(planted, text, attributes) -> None:
    remaining, held_out = hold_out_random(planted, 2, 0)
    settled = SpectralFilter().settled(remaining, held_out, NUM_ITEMS, 48, 0)
    assert None not in settled.settings().values()
    assert settled.settled(held_out, remaining, NUM_ITEMS, 48, 0) == settled
    found = scores(fitted(settled, planted, text, attributes), planted)
    history = planted.pad(USERS)
    best = found.scatter(1, history.item_idx, -torch.inf).topk(4, dim=1).indices.numpy()
    assert ((best - 1) % NUM_GROUPS == (USERS % NUM_GROUPS)[:, None]).mean() > 0.9


def test_given_settings_stay(planted) -> None:
    remaining, held_out = hold_out_random(planted, 2, 0)
    given = SpectralFilter(power=1.0, user_exponent=0.7, item_exponent=0.6, sitting=7.0)
    settled = given.settled(remaining, held_out, NUM_ITEMS, 16, 0)
    assert settled == replace(given, directions=settled.directions, tilt=settled.tilt)


def test_the_exponent_of_items_is_the_better_one(planted, monkeypatch) -> None:
    remaining, held_out = hold_out_random(planted, 2, 0)
    values = {}
    choose = SpectralFilter._choice

    def told(self: SpectralFilter, *given):
        found = choose(self, *given)
        values[self.user_exponent, self.item_exponent] = found.value + (self.item_exponent == 0.2)
        return found._replace(value=values[self.user_exponent, self.item_exponent])

    monkeypatch.setattr(SpectralFilter, "_choice", told)
    settled = SpectralFilter(sitting=SITTING).settled(remaining, held_out, NUM_ITEMS, 16, 0)
    assert settled.item_exponent == 0.2
    assert len(values) == 3  # one more decomposition, of the better exponent of users


def test_of_a_manifest_without_the_exponent_of_items_it_is_as_it_was(planted, text, attributes):
    told = {"user_exponent": 0.3, "directions": 8, "power": 1.0, "tilt": 0.1}
    before = SpectralFilter(item_exponent=0.4).with_settings(told, "train again")
    now = SpectralFilter().with_settings(told, "train again")
    queries = [fitted(one, planted, text, attributes) for one in (before, now)]
    assert torch.equal(*(one.all_candidates() for one in queries))


def test_settings_come_back_from_a_manifest() -> None:
    settled = SpectralFilter(sitting=2.0, directions=8, power=0.5, tilt=0.1)
    assert SpectralFilter().with_settings(settled.settings(), "train again") == settled


@pytest.mark.parametrize("settings", [{"directions": 0}, {"power": "2"}, {"dim": 3}, 7])
def test_other_settings_are_refused(settings: object) -> None:
    with pytest.raises(InputError):
        SpectralFilter().with_settings(settings, "train again")


def test_events_that_weigh_more_draw_more(text, attributes) -> None:
    """Item 1 meets item 2 in strong events, and item 3 as often in weak ones."""
    users = np.repeat(np.arange(1, 21), 2)
    items = np.stack([np.ones(20), np.where(np.arange(20) % 2, 2, 3)], axis=1).ravel()
    weights = np.where(np.repeat(np.arange(20) % 2, 2), 3.0, 1.0).astype(np.float32)
    train = Histories.from_indices(
        users, items.astype(np.int64), np.arange(40), 20, weights=weights
    )
    filtered = replace(EXACT, tilt=0.0)
    ensemble = fitted(filtered, train, text, attributes)
    with torch.inference_mode():
        query = ensemble.query(torch.tensor([[1]]), torch.tensor([[True]]))
        of_2, of_3 = (query @ ensemble.all_candidates().T)[0, 2:4].tolist()
    assert of_2 > of_3 > 0


def hops(step: int, num_users: int = 300, length: int = 12) -> Histories:
    """Users hop between groups of twelve items; two events in turn, ``step`` apart, share one."""
    rng = np.random.default_rng(0)
    groups = np.repeat(rng.integers(0, 4, (num_users, length // 2)), 2, axis=1)
    within = np.argsort(rng.random((num_users, 12)), axis=1)[:, :length]
    users = np.repeat(np.arange(1, num_users + 1), length)
    times = np.tile(np.arange(length), num_users) * step
    return Histories.from_indices(users, (within * 4 + groups + 1).ravel(), times, num_users)


@pytest.mark.parametrize("step", [1, 86_400])
def test_sittings_are_as_long_as_the_events_tell(step: int) -> None:
    """Of numbers in place of times, and of an event a day, minutes tell nothing."""
    remaining, held_out = hold_out_like("leave_last", hops(step), 1, 0.1, 0)
    settled = SpectralFilter().settled(remaining, held_out, NUM_ITEMS, 16, 0)
    assert settled.sitting == 2.0 * step
    alike = SpectralFilter(sitting=SITTING).settled(remaining, held_out, NUM_ITEMS, 16, 0)
    assert alike.sitting == SITTING


def test_items_of_one_sitting_are_drawn_together(text, attributes) -> None:
    """Items 1 and 2 always meet within seconds, 1 and 3 as often but days apart."""
    users = np.repeat(np.arange(1, 21), 3)
    items, times = np.tile([1, 2, 3], 20), np.tile([0, 5, 10**6], 20)
    train = Histories.from_indices(users, items, times, 20)
    drawn = []
    for weight in (0.0, 1.0):
        objective = replace(EXACT, sitting_weight=weight, tilt=0.0)
        ensemble = fitted(objective, train, text, attributes)
        with torch.inference_mode():
            query = ensemble.query(torch.tensor([[1]]), torch.tensor([[True]]))
            drawn.append((query @ ensemble.all_candidates().T)[0, 2:4])
    assert drawn[0][0] == pytest.approx(float(drawn[0][1]), rel=1e-3)
    assert drawn[1][0] > 1.5 * drawn[1][1]


def test_attributes_of_users_change_nothing(planted, text, attributes) -> None:
    context = np.random.default_rng(0).random((NUM_USERS + 1, 2), np.float32)
    plain, told = (
        scores(fitted(EXACT, train, text, attributes), train)
        for train in (planted, replace(planted, context=context))
    )
    torch.testing.assert_close(told, plain)


def test_towers_that_are_not_linear_are_refused(planted, text, attributes) -> None:
    content = content_features(text, attributes, torch.ones(NUM_ITEMS + 1, dtype=torch.int64))
    ensemble = build_two_tower([MODEL | {"use_bias": True}], content, 0)
    with pytest.raises(ValueError, match="use_bias=false"):
        EXACT.fit(ensemble.members[0], planted, content)
