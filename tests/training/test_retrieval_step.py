"""What a training step saves itself: sorting, and what content says of an item twice."""

import torch

from recsys.models.layers import StandardizedLinear, weighted_sum_pool
from recsys.models.two_tower import ItemEncoder
from recsys.training.retrieval import _distinct, _ItemsOfStep

NUM_ITEMS = 9


def encoder() -> ItemEncoder:
    torch.manual_seed(0)
    mean, scale = torch.randn(5), torch.rand(5) + 0.5
    return ItemEncoder(NUM_ITEMS, 4, StandardizedLinear(mean, scale, 4), id_dropout=0.0)


def test_distinct_items_are_those_of_unique() -> None:
    items = torch.randint(0, 50, (7, 30), generator=torch.Generator().manual_seed(0))
    expected = torch.unique(items, return_inverse=True)
    assert all(map(torch.equal, _distinct(items, 60), expected))


def test_statistics_in_the_weights_standardise_the_features() -> None:
    projection = encoder().projection
    features = torch.randn(6, 5)
    standardized = (features - projection.mean) * projection.scale
    torch.testing.assert_close(projection(features), projection.linear(standardized))


def test_content_is_encoded_once_for_all_that_ask_in_a_step(monkeypatch) -> None:
    items, features, asked = encoder(), torch.randn(NUM_ITEMS + 1, 5), []
    project = items.projection.forward

    def counted(rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows)
        return project(rows)

    monkeypatch.setattr(items.projection, "forward", counted)
    step = _ItemsOfStep(items, features, torch.arange(2, 8))
    for wanted in ([2, 3, 4, 5, 6, 7], [2, 5, 7], [2, 3, 4, 5, 6, 7]):
        wanted = torch.tensor(wanted)
        expected = items.with_content(wanted, project(features[wanted]))
        torch.testing.assert_close(step(wanted), expected)
    assert len(asked) == 1
    others = torch.tensor([1, 5])
    torch.testing.assert_close(step(others), items.with_content(others, project(features[others])))
    assert len(asked) == 2


def test_gradients_are_those_of_encoding_twice() -> None:
    features, all_items, some = (
        torch.randn(NUM_ITEMS + 1, 5),
        torch.arange(1, 10),
        torch.arange(3, 6),
    )
    shared, separate = encoder(), encoder()
    step = _ItemsOfStep(shared, features, all_items[:0])
    (step(all_items).square().sum() + step(some).cos().sum()).backward()
    loss = separate(all_items, features).square().sum() + separate(some, features).cos().sum()
    loss.backward()
    for one, other in zip(shared.parameters(), separate.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_padding_adds_nothing_to_a_pool() -> None:
    table, positions = torch.randn(6, 3), torch.tensor([[0, 2, 5], [1, 1, 0], [4, 3, 2]])
    weights = torch.tensor([[0.5, 0.0, 2.0], [0.0, 0.0, 0.0], [1.0, -1.0, 0.0]])
    expected = (table[positions] * weights[:, :, None]).sum(dim=1)
    torch.testing.assert_close(weighted_sum_pool(table, positions, weights), expected)
    assert weighted_sum_pool(table, positions[:0], weights[:0]).shape == (0, 3)
