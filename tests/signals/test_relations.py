"""Relations: dot products of few dimensions tell what the graphs tell."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.signals.item_graph import ItemGraph
from recsys.signals.relations import RELATIONS, Relations, factorized


def graph_of(weights: np.ndarray) -> ItemGraph:
    """Of a symmetric matrix without a diagonal."""
    keys = np.flatnonzero(weights)
    values = weights.reshape(-1)[keys].astype(np.float32)
    return ItemGraph(len(weights) - 1, torch.from_numpy(keys), torch.from_numpy(values))


def random_weights(size: int, rank: int, seed: int) -> np.ndarray:
    """Whose square roots have a rank, but for the diagonal; row 0 is padding."""
    half = np.abs(np.random.default_rng(seed).normal(size=(size, rank)))
    weights = (half @ half.T) ** 2
    np.fill_diagonal(weights, 0.0)
    weights[0] = weights[:, 0] = 0.0
    return weights


@settings(max_examples=20, deadline=None)
@given(size=st.integers(9, 40), rank=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_graph_of_low_rank_comes_back_up_to_its_diagonal(size, rank, seed) -> None:
    weights = random_weights(size, rank, seed)
    vectors, signs = factorized(graph_of(weights), 8)
    found = ((vectors * signs) @ vectors.T).numpy()
    off = ~np.eye(size, dtype=bool)
    error, expected = (found - np.sqrt(weights))[off], np.sqrt(weights)[off]
    assert (error**2).sum() < 0.02 * (expected**2).sum()


def test_negative_eigenvalues_are_kept_by_their_signs() -> None:
    """Two groups that go together across, and not within: no sum of squares alone says so."""
    group = np.arange(21) % 2
    weights = (group[:, None] != group[None, :]).astype(float)
    weights[0] = weights[:, 0] = 0.0
    vectors, signs = factorized(graph_of(weights), 2)
    assert sorted(signs.tolist()) == [-1.0, 1.0]
    found = (vectors * signs) @ vectors.T
    assert found[1, 2] == pytest.approx(1.0, abs=0.05)
    assert found[1, 3] == pytest.approx(0.0, abs=0.15)


def test_a_graph_of_few_items_or_none_has_columns_of_zeros() -> None:
    vectors, signs = factorized(graph_of(random_weights(4, 1, 0)), 10)
    assert vectors.shape == (4, 10)
    assert (signs.abs() == 1).all()
    assert not vectors[:, 4:].any()
    assert not vectors[0].any()
    nothing, _ = factorized(graph_of(np.zeros((5, 5))), 3)
    assert not nothing.any()


@pytest.fixture
def relations() -> Relations:
    text = torch.nn.functional.pad(torch.randn(8, 4), (0, 0, 1, 0))
    graphs = [graph_of(random_weights(9, 2, seed)) for seed in (0, 1)]
    return Relations.fit(graphs, text)


def test_each_relation_has_a_block_of_one_width(relations: Relations) -> None:
    assert relations.vectors.shape == (9, len(RELATIONS) * 4)
    assert relations.width == 4
    blocks = relations.vectors.view(9, len(RELATIONS), 4)
    expected = (blocks.square() * relations.signs.view(len(RELATIONS), 4)).sum(dim=2)
    torch.testing.assert_close(relations.with_itself(), expected)
    together = (relations.vectors[2] * relations.vectors[5]) @ relations.blocks
    signed = blocks[2] * relations.signs.view(len(RELATIONS), 4)
    torch.testing.assert_close(together, (signed * blocks[5]).sum(dim=1))


def test_later_items_go_together_by_text_alone(relations: Relations) -> None:
    text = torch.randn(2, 4)
    later = relations.later(text).vectors
    assert torch.equal(later[:, -4:], text)
    assert not later[:, :-4].any()


@pytest.mark.parametrize(
    "change",
    [
        {"vectors": torch.zeros(9, 11)},
        {"vectors": torch.zeros(8, 12)},
        {"vectors": torch.full((9, 12), torch.nan)},
        {"vectors": torch.zeros(9, 12, dtype=torch.float64)},
        {"signs": torch.zeros(12)},
        {"signs": torch.ones(11)},
        {"signs": torch.ones(0)},
        {"signs": torch.ones(12, 1)},
    ],
)
def test_relations_that_do_not_fit_are_refused(relations: Relations, change: dict) -> None:
    relations.check(8)
    with pytest.raises(ValueError):
        Relations(**{**vars(relations), **change}).check(8)
