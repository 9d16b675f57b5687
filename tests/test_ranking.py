"""One rule for order: score, then a hash that knows nothing of ids or columns."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.ranking import tie_hash, top_k


@settings(max_examples=100, deadline=None)
@given(
    scores=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=1, max_size=30),
    k=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_order_equals_a_sort_by_score_and_hash(scores, k, seed) -> None:
    items = torch.arange(1, len(scores) + 1)
    best_scores, best = top_k(torch.tensor([scores]), items, k, seed)
    order = np.lexsort((tie_hash(items, seed).numpy(), -np.array(scores)))[:k]
    assert best[0].tolist() == (order + 1).tolist()
    assert best_scores[0].tolist() == [scores[i] for i in order]


def test_the_order_of_columns_does_not_matter() -> None:
    scores = torch.tensor([[1.0, 1.0, 3.0, 1.0, 0.0]])
    items = torch.tensor([[4, 9, 2, 7, 5]])
    turned = torch.tensor([3, 1, 4, 0, 2])
    straight = top_k(scores, items, 5)[1]
    assert torch.equal(straight, top_k(scores[:, turned], items[:, turned], 5)[1])


def test_minus_infinity_is_an_empty_slot() -> None:
    scores = torch.tensor([[-torch.inf, 2.0, -torch.inf]])
    _, items = top_k(scores, torch.tensor([1, 2, 3]), 3)
    assert items.tolist() == [[2, 0, 0]]


def test_ties_fall_differently_under_another_seed() -> None:
    items = torch.arange(1, 101)
    orders = [top_k(torch.zeros(1, 100), items, 100, seed)[1] for seed in (0, 1)]
    assert not torch.equal(*orders)
    assert abs(float(np.corrcoef(orders[0][0], np.arange(100))[0, 1])) < 0.3
