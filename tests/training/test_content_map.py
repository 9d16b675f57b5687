"""The map from content: items with events keep their vectors, others get what content says."""

import pytest
import torch
from torch import Tensor

from recsys.models.layers import StandardizedLinear
from recsys.models.two_tower import ItemEncoder
from recsys.training.content_map import fit_content_map

NUM_ITEMS, WIDTH, DIM = 30, 5, 3


@pytest.fixture
def features() -> Tensor:
    return torch.randn(NUM_ITEMS + 1, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def vectors(features) -> Tensor:
    """Exactly linear in content."""
    generator = torch.Generator().manual_seed(1)
    return 0.7 + features @ torch.randn(WIDTH, DIM, generator=generator)


def encoder(features: Tensor) -> ItemEncoder:
    projection = StandardizedLinear(features.mean(dim=0), torch.full((WIDTH,), 2.0), DIM)
    return ItemEncoder(NUM_ITEMS, DIM, projection, id_dropout=0.0).eval()


def encoded(model: ItemEncoder, features: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(torch.arange(NUM_ITEMS + 1), features)


def test_items_with_events_keep_their_vectors(features) -> None:
    vectors = torch.randn(NUM_ITEMS + 1, DIM)
    seen = torch.arange(NUM_ITEMS + 1) > 4
    model = encoder(features)
    fit_content_map(model, vectors, features, seen, l2=1.0)
    torch.testing.assert_close(encoded(model, features)[seen], vectors[seen])


def test_a_linear_map_is_found_and_carries_over_to_items_without_events(features, vectors) -> None:
    seen = torch.arange(NUM_ITEMS + 1) > 4
    model = encoder(features)
    fit_content_map(model, vectors, features, seen, l2=1e-6)
    torch.testing.assert_close(encoded(model, features)[1:], vectors[1:], atol=1e-4, rtol=1e-4)
    assert not model.id_embedding.weight[:5].any()


def test_a_large_penalty_leaves_the_average_vector(features, vectors) -> None:
    seen = torch.arange(NUM_ITEMS + 1) > 4
    model = encoder(features)
    fit_content_map(model, vectors, features, seen, l2=1e9)
    expected = vectors[seen].mean(dim=0).expand(4, DIM)
    torch.testing.assert_close(encoded(model, features)[1:5], expected, atol=1e-4, rtol=1e-4)


def test_without_content_the_id_embedding_is_everything(vectors, features) -> None:
    model = ItemEncoder(NUM_ITEMS, DIM, None, id_dropout=0.0).eval()
    seen = torch.arange(NUM_ITEMS + 1) > 4
    fit_content_map(model, vectors, features, seen, l2=1.0)
    torch.testing.assert_close(encoded(model, features)[seen], vectors[seen])
    assert not encoded(model, features)[1:5].any()
