"""A tower fitted in closed form: the solution, its low rank, and items known by content alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.artifact import build_two_tower
from recsys.baselines import fit_ease
from recsys.data.histories import Histories
from recsys.errors import InputError
from recsys.features import content_features
from recsys.models.two_tower import TwoTower
from recsys.training.content_map import KernelRidge, fix_items
from recsys.training.item_regression import ItemRegression, low_rank
from tests.training.conftest import NUM_GROUPS, NUM_ITEMS, NUM_USERS

MODEL = {
    "dim": NUM_ITEMS,
    "use_content": False,
    "use_bias": False,
    "hidden_dim": 0,
    "dropout": 0.0,
    "id_dropout": 0.0,
    "length_exponent": 0.0,
}
EASE = ItemRegression(l2=2.0, session_weight=0.0, content_weight=0.0, length_discount=0.0)
USERS = np.arange(1, NUM_USERS + 1)


def fitted(
    objective: ItemRegression, train: Histories, text: Tensor, attributes: Tensor, **model: object
) -> TwoTower:
    counts = torch.from_numpy(train.item_counts(NUM_ITEMS))
    content = content_features(text, attributes, counts)
    ensemble = build_two_tower([MODEL | model], content, train.context.shape[1]).eval()
    objective.fit(ensemble.members[0], train, content)
    return ensemble


def scores(ensemble: torch.nn.Module, train: Histories) -> Tensor:
    history = train.pad(USERS)
    with torch.inference_mode():
        return ensemble.query(history.item_idx, history.mask) @ ensemble.all_candidates().T


def test_without_priors_and_at_full_rank_it_is_ease(planted, text, attributes) -> None:
    ours = scores(fitted(EASE, planted, text, attributes), planted)
    ease = fit_ease(planted, NUM_ITEMS, regularization=2.0).scores(USERS)
    torch.testing.assert_close(ours[:, 1:], torch.from_numpy(ease)[:, 1:], atol=1e-4, rtol=1e-4)


def test_low_rank_is_the_best_approximation_of_the_scores() -> None:
    """Eckart and Young: what is left has the norm of the singular values that were cut."""
    train = Histories.from_indices(
        np.repeat(np.arange(1, 9), 3), np.arange(24) * 7 % 10 + 1, np.arange(24), 8
    )
    weights = torch.randn(11, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights[0] = weights[:, 0] = 0.0
    full = torch.from_numpy(train.matrix(10).toarray()).double() @ weights
    queries, candidates = low_rank(weights, train.matrix(10), 3)
    approximation = torch.from_numpy(train.matrix(10).toarray()).double() @ queries @ candidates.T
    singular = torch.linalg.svdvals(full)
    assert float((full - approximation).norm()) == pytest.approx(float(singular[3:].norm()))


def test_a_few_directions_find_the_planted_groups(planted, text, attributes) -> None:
    found = scores(fitted(EASE, planted, text, attributes, dim=NUM_GROUPS), planted)
    history = planted.pad(USERS)
    found = found.scatter(1, history.item_idx, -torch.inf)
    best = found.topk(4, dim=1).indices.numpy()
    assert ((best - 1) % NUM_GROUPS == (USERS % NUM_GROUPS)[:, None]).all()


def test_items_of_one_sitting_are_drawn_together() -> None:
    """Items 1 and 2 always meet within seconds, 1 and 3 as often but days apart."""
    users = np.repeat(np.arange(1, 21), 3)
    items = np.tile([1, 2, 3], 20)
    times = np.tile([0, 5, 9 * 86_400], 20)
    train = Histories.from_indices(users, items, times, 20)
    text, attributes = torch.zeros(NUM_ITEMS + 1, 2), torch.zeros(NUM_ITEMS + 1, 1)
    for weight, together in ((0.0, False), (5.0, True)):
        objective = ItemRegression(l2=10.0, session_weight=weight, content_weight=0.0)
        ensemble = fitted(objective, train, text, attributes)
        history = torch.tensor([[1]])
        query = ensemble.query(history, history > 0)
        second, third = (query @ ensemble.candidates(torch.tensor([2, 3])).T)[0].tolist()
        assert (second > third + 1e-3) == together


def test_an_item_without_events_is_placed_by_its_content(planted, attributes) -> None:
    """Content tells the group; the item that nobody has is found by its group's users."""
    groups = torch.arange(NUM_ITEMS + 1).sub(1) % NUM_GROUPS
    text = torch.nn.functional.one_hot(groups, NUM_GROUPS).float()
    text[0] = 0.0
    new_item = 6
    train = planted.select(planted.item_idx != new_item)
    content = content_features(text, attributes, torch.from_numpy(train.item_counts(NUM_ITEMS)))
    ensemble = fitted(ItemRegression(l2=2.0), train, text, attributes, dim=8)
    assert not ensemble.item_vectors()[new_item].any()
    seen = torch.arange(NUM_ITEMS + 1) != new_item
    seen[0] = False
    fix_items(ensemble, content, seen, KernelRidge(l2=1.0))
    of_item = scores(ensemble, train)[:, new_item]
    likes = torch.from_numpy((new_item - 1) % NUM_GROUPS == USERS % NUM_GROUPS)
    assert float(of_item[likes].min()) > float(of_item[~likes].max())


def test_it_is_the_same_every_time(planted, text, attributes) -> None:
    first, second = (
        fitted(ItemRegression(), planted, text, attributes, dim=8).state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first if "id_emb" in name)


def test_more_directions_than_items_are_left_empty(planted, text, attributes) -> None:
    wide = fitted(EASE, planted, text, attributes, dim=NUM_ITEMS + 9)
    exact = scores(fitted(EASE, planted, text, attributes), planted)
    torch.testing.assert_close(scores(wide, planted), exact, atol=1e-4, rtol=1e-4)


def test_a_large_catalogue_is_refused(planted, text, attributes) -> None:
    with pytest.raises(InputError, match="retrieval=large_catalog"):
        fitted(ItemRegression(max_items=10), planted, text, attributes)


@pytest.mark.parametrize("model", [{"hidden_dim": 4}, {"use_bias": True}])
def test_only_linear_towers_are_fitted(model, planted, text, attributes) -> None:
    with pytest.raises(ValueError, match="hidden_dim=0 and use_bias=false"):
        fitted(ItemRegression(), planted, text, attributes, **model)


def test_a_users_attributes_move_the_scores(planted, text, attributes) -> None:
    """Attributes that tell the group find its items for a user without any history."""
    groups = np.eye(NUM_GROUPS, dtype=np.float32)[np.arange(NUM_USERS + 1) % NUM_GROUPS]
    groups[0] = 0.0
    train = replace(planted, context=groups)
    ensemble = fitted(ItemRegression(l2=2.0), train, text, attributes, dim=8)
    nothing = torch.zeros(NUM_GROUPS, 1, dtype=torch.long)
    context = torch.eye(NUM_GROUPS)
    with torch.inference_mode():
        found = ensemble.query(nothing, nothing > 0, context) @ ensemble.all_candidates().T
    best = found[:, 1:].topk(5, dim=1).indices
    assert (best % NUM_GROUPS == torch.arange(NUM_GROUPS)[:, None]).all()


def heavy(num_items: int, num_events: int) -> tuple[Histories, Tensor, Tensor]:
    """Three users with many events at one moment, as an import makes them, and some with few."""
    rng = np.random.default_rng(0)
    counts = [num_events] * 3 + [3] * 10
    users = np.repeat(np.arange(1, len(counts) + 1), counts)
    items = np.concatenate([rng.choice(num_items, n, replace=False) + 1 for n in counts])
    train = Histories.from_indices(users, items, np.zeros(len(users), np.int64), len(counts))
    return train, torch.zeros(num_items + 1, 2), torch.zeros(num_items + 1, 1)


def fit(objective: ItemRegression, train: Histories, text: Tensor, attributes: Tensor) -> Tensor:
    counts = torch.from_numpy(train.item_counts(len(text) - 1))
    content = content_features(text, attributes, counts)
    model = build_two_tower([MODEL | {"dim": 4}], content, train.context.shape[1]).eval()
    objective.fit(model.members[0], train, content)
    return model.item_vectors()


def test_users_with_many_events_at_one_moment_can_be_fitted() -> None:
    vectors = fit(ItemRegression(l2=10.0), *heavy(num_items=1300, num_events=1250))
    assert torch.isfinite(vectors).all()
    assert vectors.any()


def test_a_penalty_that_leaves_nothing_to_solve_is_refused() -> None:
    objective = ItemRegression(l2=-1e6)
    with pytest.raises(InputError, match="solvable; found l2="):
        fit(objective, *heavy(num_items=30, num_events=20))


def with_weights(train: Histories) -> Histories:
    rng = np.random.default_rng(5)
    return replace(train, weights=rng.choice([1.0, 10.0], len(train)).astype(np.float32))


def test_weights_are_predicted_as_if_each_item_had_a_ridge_regression_of_its_own(
    planted, text, attributes
) -> None:
    """Column by column: the item itself left out, targets of the roots of relative weights."""
    train = with_weights(planted)
    objective = replace(EASE, length_discount=0.25)
    found = scores(fitted(objective, train, text, attributes), train)
    events = train.matrix(NUM_ITEMS).toarray().astype(np.float64)[1:, 1:]
    targets = train.matrix_of(np.sqrt(train.relative_weights), NUM_ITEMS).toarray()[1:, 1:]
    lengths = train.lengths[1:]
    by_user = (lengths / lengths.mean()) ** -0.25
    expected = np.zeros_like(events)
    for item in range(NUM_ITEMS):
        others = np.delete(events, item, axis=1)
        gram = others.T @ (by_user[:, None] * others) + objective.l2 * np.eye(NUM_ITEMS - 1)
        wanted = others.T @ (by_user * targets[:, item])
        expected[:, item] = others @ np.linalg.solve(gram, wanted)
    expected *= train.item_counts(NUM_ITEMS)[1:] > 0
    np.testing.assert_allclose(found[:, 1:].numpy(), expected, atol=1e-4)


def test_weights_that_are_all_alike_change_nothing(planted, text, attributes) -> None:
    heavy = replace(planted, weights=np.full(len(planted), 7.0, np.float32))
    one, other = (
        scores(fitted(ItemRegression(), train, text, attributes), train)
        for train in (planted, heavy)
    )
    assert torch.equal(one, other)


def test_without_times_there_are_no_sittings(text, attributes) -> None:
    """Of events at one time, all would be one sitting: the weight of one counts nothing."""
    users, items = np.repeat(USERS, 6), (np.arange(6 * NUM_USERS) * 5) % NUM_ITEMS + 1
    pairs = np.unique(np.stack([users, items]), axis=1)
    train = Histories.from_indices(pairs[0], pairs[1], np.zeros(pairs.shape[1], int), NUM_USERS)
    found = [
        scores(fitted(replace(EASE, session_weight=weight), train, text, attributes), train)
        for weight in (0.0, 50.0)
    ]
    assert torch.equal(*found)
