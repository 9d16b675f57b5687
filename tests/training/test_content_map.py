"""The map from content: items with events keep their vectors, others get what content says."""

import pytest
import torch
from scipy.interpolate import RBFInterpolator
from torch import Tensor

from recsys.artifact import build_two_tower
from recsys.features import ContentFeatures
from recsys.training.content_map import KernelRidge, fix_items

NUM_ITEMS, WIDTH, DIM = 40, 3, 4
SEEN = torch.arange(NUM_ITEMS + 1) > 8
TOWER = {
    "dim": DIM,
    "use_content": True,
    "use_bias": True,
    "hidden_dim": 0,
    "dropout": 0.0,
    "id_dropout": 0.0,
    "length_exponent": 0.5,
}


@pytest.fixture
def content() -> ContentFeatures:
    values = torch.randn(NUM_ITEMS + 1, WIDTH, generator=torch.Generator().manual_seed(0))
    return ContentFeatures(values, values[SEEN].mean(dim=0), torch.full((WIDTH,), 2.0))


@pytest.fixture
def vectors() -> Tensor:
    return torch.randn(NUM_ITEMS + 1, DIM, generator=torch.Generator().manual_seed(1))


def test_it_is_kernel_ridge_regression(content, vectors) -> None:
    fitted = KernelRidge(l2=0.3).fit(content, vectors, SEEN)
    standardized = ((content.values - content.mean) * content.scale).double().numpy()
    mean = vectors[SEEN].mean(dim=0)
    reference = RBFInterpolator(
        standardized[SEEN],
        (vectors[SEEN] - mean).double().numpy(),
        kernel="gaussian",
        epsilon=float(fitted.bandwidth) ** -0.5,
        smoothing=0.3,
        degree=-1,
    )
    expected = torch.from_numpy(reference(standardized)).float() + mean
    torch.testing.assert_close(fitted(content.values), expected, atol=1e-4, rtol=1e-4)


def test_the_bandwidth_is_in_units_of_the_mean_squared_distance(content, vectors) -> None:
    fitted = KernelRidge(bandwidth=0.5).fit(content, vectors, SEEN)
    distances = torch.cdist(fitted.landmarks, fitted.landmarks).square().mean()
    assert float(fitted.bandwidth) == pytest.approx(0.5 * float(distances), rel=1e-4)


def test_a_large_penalty_leaves_the_average_vector(content, vectors) -> None:
    fitted = KernelRidge(l2=1e9).fit(content, vectors, SEEN)
    expected = vectors[SEEN].mean(dim=0).expand(NUM_ITEMS + 1, DIM)
    torch.testing.assert_close(fitted(content.values), expected, atol=1e-4, rtol=1e-4)


def test_a_curve_is_followed_where_no_linear_map_could(content) -> None:
    curved = content.values.square().sum(dim=1, keepdim=True)
    fitted = KernelRidge(l2=1e-4, bandwidth=2.0).fit(content, curved, SEEN)
    found = fitted(content.values[1:9])
    assert float(torch.corrcoef(torch.stack([found[:, 0], curved[1:9, 0]]))[0, 1]) > 0.9


def test_many_items_are_sampled_the_same_way_every_time(content, vectors) -> None:
    first, second = (KernelRidge(max_landmarks=20).fit(content, vectors, SEEN) for _ in range(2))
    assert first.landmarks.shape == (20, WIDTH)
    assert torch.equal(first(content.values), second(content.values))


def test_items_without_any_content_get_the_average_vector(vectors) -> None:
    nothing = torch.zeros(NUM_ITEMS + 1, WIDTH)
    content = ContentFeatures(nothing, torch.zeros(WIDTH), torch.ones(WIDTH))
    found = KernelRidge().fit(content, vectors, SEEN)(nothing[:1])
    torch.testing.assert_close(found[0], vectors[SEEN].mean(dim=0), atol=1e-4, rtol=1e-4)


def test_items_with_events_keep_their_vectors_and_others_are_placed_by_content(content) -> None:
    torch.manual_seed(0)
    model = build_two_tower([TOWER], content).eval()
    before = model.item_vectors().detach()
    fix_items(model, content, SEEN, KernelRidge())
    after = model.item_vectors().detach()
    assert torch.equal(after[SEEN], before[SEEN])
    assert model.content_map is not None
    torch.testing.assert_close(after[1:9], model.content_map(content.values[1:9]))
    assert not after[0].any()
