"""The towers: padding, batches, content without ids, and one dot product over several towers."""

import pytest
import torch
from torch import Tensor

from recsys.artifact import build_two_tower
from recsys.features import content_features
from recsys.models.content_map import ContentMap
from recsys.models.history_weights import EventCounting
from recsys.models.two_tower import TwoTowerEnsemble

NUM_ITEMS = 20
LINEAR = {
    "dim": 6,
    "use_content": False,
    "use_bias": False,
    "hidden_dim": 0,
    "dropout": 0.0,
    "id_dropout": 0.0,
    "length_exponent": 0.5,
}
CONTENT = {**LINEAR, "use_content": True, "use_bias": True, "hidden_dim": 8, "dropout": 0.3}


@pytest.fixture
def model() -> TwoTowerEnsemble:
    torch.manual_seed(0)
    text = torch.nn.functional.pad(torch.randn(NUM_ITEMS, 5), (0, 0, 1, 0))
    attributes = torch.nn.functional.pad(torch.rand(NUM_ITEMS, 3).round(), (0, 0, 1, 0))
    counts = torch.ones(NUM_ITEMS + 1, dtype=torch.long)
    return build_two_tower([LINEAR, CONTENT], content_features(text, attributes, counts)).eval()


def padded(*rows: list[int]) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    history = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return history, history > 0


def test_a_query_does_not_depend_on_padding_or_on_its_batch(model) -> None:
    alone = model.query(*padded([3, 7]))
    together = model.query(*padded([3, 7], [1, 2, 3, 4, 5]))
    torch.testing.assert_close(alone[0], together[0])


def test_a_query_does_not_depend_on_the_order_of_the_history(model) -> None:
    torch.testing.assert_close(model.query(*padded([3, 7])), model.query(*padded([7, 3])))


def test_candidates_do_not_depend_on_their_batch(model) -> None:
    torch.testing.assert_close(model.all_candidates()[4:6], model.candidates(torch.tensor([4, 5])))


def test_the_ensembles_dot_product_is_the_sum_of_its_towers(model) -> None:
    model.scales.copy_(torch.tensor([2.0, 0.5]))
    query, candidates = model.query(*padded([3, 7])), model.all_candidates()
    parts = zip(
        torch.split(query, model.embedding_dims, dim=1),
        torch.split(candidates, model.embedding_dims, dim=1),
        strict=True,
    )
    torch.testing.assert_close(query @ candidates.T, sum(q @ c.T for q, c in parts))


def test_standardize_gives_each_tower_unit_variance_within_a_list(model) -> None:
    history = padded([3, 7], [1, 2, 9], [4, 5, 6])
    model.standardize(*history)
    queries = torch.split(model.query(*history), model.embedding_dims, dim=1)
    candidates = torch.split(model.all_candidates()[1:], model.embedding_dims, dim=1)
    for query, candidate in zip(queries, candidates, strict=True):
        variance = (query @ candidate.T).var(dim=1).mean()
        assert float(variance.detach()) == pytest.approx(1.0, rel=1e-4)


def test_without_content_a_tower_ignores_features(model) -> None:
    tower = model.members[0]
    item = torch.tensor([5])
    one, other = torch.zeros(NUM_ITEMS + 1, 8), torch.ones(NUM_ITEMS + 1, 8)
    assert torch.equal(tower.candidate_tower(item, one), tower.candidate_tower(item, other))


def test_content_moves_an_item_whose_id_was_never_trained(model) -> None:
    tower = model.members[1]
    item = torch.tensor([5])
    one, other = torch.zeros(NUM_ITEMS + 1, 8), torch.ones(NUM_ITEMS + 1, 8)
    assert not torch.equal(tower.candidate_tower(item, one), tower.candidate_tower(item, other))


def test_a_query_is_a_sum_of_items_by_the_power_of_their_weights(model) -> None:
    model.counting = EventCounting(None, 0.5)
    history, mask = padded([3, 7], [5])
    weights = torch.tensor([[4.0, 0.25], [9.0, 0.0]])
    tower = model.members[0]
    vectors = tower.query_tower.items(torch.arange(NUM_ITEMS + 1), model.features)
    # Lengths are sums of what events count: 2 + 1 / 2, and 3.
    expected = torch.stack(
        [(2.0 * vectors[3] + 0.5 * vectors[7]) / 2.5**0.5, 3.0 * vectors[5] / 3.0**0.5]
    )
    found = model.query(history, mask, weights=weights)[:, : tower.embedding_dim]
    torch.testing.assert_close(found, model.scales[0] * expected)


def test_an_empty_history_has_a_finite_query(model) -> None:
    history = torch.zeros(1, 3, dtype=torch.long)
    assert torch.isfinite(model.query(history, history > 0)).all()


def test_id_dropout_is_active_in_training_only(model) -> None:
    encoder = model.members[1].candidate_tower.items
    encoder.id_dropout = 0.5
    items, features = torch.arange(1, 21), torch.zeros(NUM_ITEMS + 1, 8)
    assert torch.equal(encoder(items, features), encoder(items, features))
    encoder.train()
    torch.manual_seed(0)
    content = encoder.projection(features[items])
    dropped = (encoder(items, features) - content).abs().sum(dim=1) == 0
    assert 0 < int(dropped.sum()) < 20


def test_fixed_items_have_the_given_vectors_and_no_content(model) -> None:
    vectors = torch.randn(NUM_ITEMS + 1, model.item_vectors().shape[1])
    vectors[0] = 0.0
    content_map = ContentMap(3, 8, vectors.shape[1])
    model.fix_items(vectors, content_map)
    assert torch.equal(model.item_vectors(), vectors)
    state = model.state_dict()
    assert not any("projection" in name or name == "features" for name in state)
    assert {name for name in state if name.startswith("content_map.")} >= {
        "content_map.landmarks",
        "content_map.mean",
    }


def test_vectors_that_are_kept_elsewhere_are_the_same_ones(model) -> None:
    vectors = torch.randn(NUM_ITEMS + 1, model.item_vectors().shape[1])
    vectors[0] = 0.0
    with pytest.raises(ValueError, match="made of content"):
        model.share_items(vectors.split(model.vector_dims, dim=1))
    model.fix_items(vectors, ContentMap(3, 8, vectors.shape[1]))
    history, mask = padded([1, 2, 3], [4])
    expected = model.query(history, mask), model.all_candidates()
    model.share_items(vectors.split(model.vector_dims, dim=1))
    assert torch.equal(model.query(history, mask), expected[0])
    assert torch.equal(model.all_candidates(), expected[1])
    assert torch.equal(model.item_vectors(), vectors)
    assert model.num_items == NUM_ITEMS
    assert model.features.untyped_storage().nbytes() == 4
    stored = {one.id_embedding.weight.untyped_storage().data_ptr() for one in model.encoders}
    assert stored == {vectors.untyped_storage().data_ptr()}
