"""One rule for order: score, then a hash that knows nothing of ids or columns."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.ranking import order, tie_hash, top_k


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


SCORES = st.sampled_from([-torch.inf, -1.0, 0.0, 0.5, 2.0])


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(0, 60).flatmap(
        lambda n: st.lists(st.lists(SCORES, min_size=n, max_size=n), min_size=1, max_size=4)
    ),
    k=st.integers(1, 6),
    seed=st.integers(0, 5),
)
def test_wide_rows_equal_a_sort_of_whole_rows(rows, k, seed) -> None:
    scores = torch.tensor(rows)
    items = torch.arange(1, scores.shape[1] + 1)
    best_scores, best = top_k(scores, items, k, seed)
    order = [np.lexsort((tie_hash(items, seed).numpy(), -np.array(row)))[:k] for row in rows]
    assert best_scores.tolist() == [[row[i] for i in o] for row, o in zip(rows, order, strict=True)]
    assert best.tolist() == [
        [int(i) + 1 if row[i] > -np.inf else 0 for i in o]
        for row, o in zip(rows, order, strict=True)
    ]


def test_ties_at_the_border_go_by_hash_also_in_wide_rows() -> None:
    # One row has many ties at its second place, the other none.
    scores = torch.zeros(2, 1000)
    scores[:, 7] = 1.0
    scores[1] += torch.arange(1000) / 1e4
    items = torch.arange(1, 1001)
    _, best = top_k(scores, items, 3)
    tied = sorted((key, item) for item, key in enumerate(tie_hash(items).tolist(), 1) if item != 8)
    assert best.tolist() == [[8, tied[0][1], tied[1][1]], [8, 1000, 999]]


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


@given(
    st.integers(1, 4),
    st.integers(0, 30),
    st.integers(0, 2**32),
)
def test_order_is_the_one_of_top_k(num_rows: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(50)[:width] + 1 for _ in range(num_rows)])
    # Few values, so that most tie; some must not be returned.
    scores = rng.choice([-np.inf, -1.0, 0.0, -0.0, 0.5], (num_rows, width)).astype(np.float32)
    expected_scores, expected = top_k(torch.from_numpy(scores), torch.from_numpy(items), width)
    hashes = tie_hash(torch.from_numpy(items)).numpy()
    best = order(scores, hashes)
    found_scores = np.take_along_axis(scores, best, axis=1)
    found = np.where(np.isneginf(found_scores), 0, np.take_along_axis(items, best, axis=1))
    assert found.tolist() == expected.numpy().tolist()
    assert found_scores.tolist() == expected_scores.numpy().tolist()
