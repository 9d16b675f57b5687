import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recsys.metrics import (
    catalog_coverage,
    graded_ndcg_at_k,
    hit_matrix,
    intra_list_diversity,
    ndcg_at_k,
    novelty,
    recall_at_k,
    weighted_recall_at_k,
)

NUM_ITEMS = 30


def bools(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.bool)


def discount(rank: int) -> float:
    return 1 / math.log2(rank + 1)


def test_a_hit_is_a_held_out_item_of_the_same_user():
    ranked = torch.tensor([[3, 1, 2], [3, 1, 2]])
    hits = hit_matrix(ranked, torch.tensor([0, 0, 1]), torch.tensor([1, 9, 3]), NUM_ITEMS)
    assert hits.tolist() == [[False, True, False], [True, False, False]]


def test_an_empty_slot_never_hits_an_unknown_item():
    ranked = torch.tensor([[0, 2, 0]])
    hits = hit_matrix(ranked, torch.tensor([0, 0]), torch.tensor([0, 2]), NUM_ITEMS)
    assert hits.tolist() == [[False, True, False]]


def test_the_last_item_is_not_taken_for_padding_of_the_next_row():
    ranked = torch.tensor([[NUM_ITEMS], [0]])
    hits = hit_matrix(ranked, torch.tensor([1]), torch.tensor([NUM_ITEMS]), NUM_ITEMS)
    assert not hits.any()


def test_recall_counts_hits_over_all_relevant():
    hits = bools([[1, 0, 1, 1], [0, 0, 0, 0]])
    relevant = torch.tensor([10, 2])
    assert recall_at_k(hits, relevant, 1).tolist() == [0.1, 0.0]
    assert recall_at_k(hits, relevant, 3).tolist() == [0.2, 0.0]
    assert recall_at_k(hits, relevant, 4).tolist() == pytest.approx([0.3, 0.0])


def test_weighted_recall_counts_what_is_found_over_what_there_is():
    gains, wanted = (
        torch.tensor([[3.0, 0.0, 1.0], [0.0, 0.0, 0.0]]),
        torch.tensor([[1.0, 3.0, 4.0]] * 2),
    )
    wanted[1] = 0.0
    assert weighted_recall_at_k(gains, wanted, 2).tolist() == [3 / 8, 0.0]
    assert weighted_recall_at_k(gains, wanted, 3).tolist() == [4 / 8, 0.0]


def test_graded_ndcg_puts_what_counts_most_first():
    gains, wanted = torch.tensor([[1.0, 0.0, 3.0]]), torch.tensor([[1.0, 3.0, 2.0, 0.0]])
    gained = 1.0 * discount(1) + 3.0 * discount(3)
    best = 3.0 * discount(1) + 2.0 * discount(2) + 1.0 * discount(3)
    assert graded_ndcg_at_k(gains, wanted, 3).item() == pytest.approx(gained / best)
    assert graded_ndcg_at_k(gains, wanted, 1).item() == pytest.approx(1 / 3)
    assert graded_ndcg_at_k(wanted.sort(descending=True).values, wanted, 9).tolist() == [1.0]
    assert graded_ndcg_at_k(torch.zeros(1, 3), torch.zeros(1, 2), 3).tolist() == [0.0]


def test_metrics_with_equal_gains_are_those_of_hits():
    hits = torch.rand(40, 6, generator=torch.Generator().manual_seed(0)) < 0.4
    number = hits.sum(dim=1) + torch.arange(40) % 9
    gains, wanted = 2.5 * hits, 2.5 * (torch.arange(15) < number[:, None])
    for k in (1, 3, 6, 10):
        graded, recall = graded_ndcg_at_k(gains, wanted, k), weighted_recall_at_k(gains, wanted, k)
        torch.testing.assert_close(graded, ndcg_at_k(hits, number, k))
        torch.testing.assert_close(recall, recall_at_k(hits, number, k))


def test_ndcg_discounts_by_rank():
    hits = bools([[1, 0, 1]])
    ideal = discount(1) + discount(2) + discount(3)
    expected = (discount(1) + discount(3)) / ideal
    assert ndcg_at_k(hits, torch.tensor([5]), 3).item() == pytest.approx(expected)


def test_ndcg_of_a_single_relevant_item():
    hits = bools([[0, 0, 1, 0]])
    assert ndcg_at_k(hits, torch.tensor([1]), 4).item() == pytest.approx(0.5)
    assert ndcg_at_k(hits, torch.tensor([1]), 2).item() == 0


def test_ideal_list_is_as_long_as_the_relevant_items_at_most():
    hits = bools([[1, 1, 0, 0, 0]])
    assert ndcg_at_k(hits, torch.tensor([2]), 5).item() == pytest.approx(1)
    assert ndcg_at_k(hits, torch.tensor([200]), 2).item() == pytest.approx(1)


def test_a_short_list_scores_zero_for_what_it_lacks():
    short, padded = bools([[1, 1]]), bools([[1, 1, 0, 0, 0]])
    relevant = torch.tensor([4])
    assert recall_at_k(short, relevant, 5).item() == 0.5
    assert ndcg_at_k(short, relevant, 5).item() == pytest.approx(
        (discount(1) + discount(2)) / sum(discount(rank) for rank in (1, 2, 3, 4))
    )
    assert torch.equal(ndcg_at_k(short, relevant, 5), ndcg_at_k(padded, relevant, 5))


def test_an_empty_list_and_a_user_without_relevant_items_score_zero():
    empty = hit_matrix(torch.zeros(1, 5, dtype=torch.int64), *torch.tensor([[0], [3]]), NUM_ITEMS)
    none = bools([[0, 0, 0, 0, 0]])
    for metric in (recall_at_k, ndcg_at_k):
        assert metric(empty, torch.tensor([1]), 5).item() == 0
        assert metric(none, torch.tensor([0]), 5).item() == 0
        assert metric(torch.zeros(2, 0, dtype=torch.bool), torch.tensor([1, 2]), 5).tolist() == [
            0,
            0,
        ]


def test_coverage_is_the_share_of_the_catalogue_shown():
    ranked = torch.tensor([[1, 2, 9], [2, 3, 9], [0, 0, 0]])
    assert catalog_coverage(ranked, 2, 10) == pytest.approx(0.3)
    assert catalog_coverage(ranked, 3, 10) == pytest.approx(0.4)


def test_novelty_is_bits_of_self_information():
    counts = torch.tensor([0, 8, 2, 0])
    assert novelty(torch.tensor([[1, 0]]), 2, counts, 8) == 0
    assert novelty(torch.tensor([[2, 1]]), 2, counts, 8) == pytest.approx(1)
    # Item 3, which nobody has, counts as if one of the eight users had it.
    assert novelty(torch.tensor([[3]]), 1, counts, 8) == pytest.approx(3)
    assert novelty(torch.tensor([[0]]), 1, counts, 8) == 0


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ranked lists [U, K] with empty ends, held-out rows and items, and counts per user."""
    seed = draw(st.integers(0, 2**31))
    num_users = draw(st.integers(1, 6))
    width = draw(st.integers(0, 20))
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(num_users, NUM_ITEMS, generator=generator).argsort(dim=1) + 1
    lengths = torch.randint(width + 1, (num_users, 1), generator=generator)
    ranked = order[:, :width] * (torch.arange(width) < lengths)
    # Column 0 of the mask is the unknown item.
    held_out = torch.rand(num_users, NUM_ITEMS + 1, generator=generator) < 0.2
    rows, items = held_out.nonzero(as_tuple=True)
    return ranked, rows, items, torch.bincount(rows, minlength=num_users)


def recall_and_ndcg(case: tuple[Tensor, ...], k: int) -> tuple[Tensor, Tensor]:
    ranked, rows, items, relevant = case
    hits = hit_matrix(ranked, rows, items, NUM_ITEMS)
    return recall_at_k(hits, relevant, k), ndcg_at_k(hits, relevant, k)


@given(cases(), st.integers(1, 25))
def test_metrics_lie_between_zero_and_one(case, k):
    for values in recall_and_ndcg(case, k):
        assert values.dtype == torch.float64
        assert ((values >= 0) & (values <= 1 + 1e-12)).all()


@given(cases(), st.integers(1, 25))
def test_recall_never_falls_as_lists_grow(case, k):
    assert (recall_and_ndcg(case, k + 1)[0] >= recall_and_ndcg(case, k)[0]).all()


@given(cases(), st.integers(1, 25), st.randoms(use_true_random=False))
def test_the_order_of_users_and_events_does_not_matter(case, k, random):
    ranked, rows, items, relevant = case
    users = torch.tensor(random.sample(range(len(ranked)), len(ranked)))
    events = torch.tensor(random.sample(range(len(rows)), len(rows)), dtype=torch.int64)
    new_row = users.argsort()
    shuffled = (ranked[users], new_row[rows][events], items[events], relevant[users])
    for values, moved in zip(recall_and_ndcg(case, k), recall_and_ndcg(shuffled, k), strict=True):
        assert torch.equal(values[users], moved)


@given(cases(), st.integers(1, 25))
def test_a_user_scores_the_same_alone_as_in_a_batch(case, k):
    ranked, rows, items, relevant = case
    together = recall_and_ndcg(case, k)
    for user in range(len(ranked)):
        mine = rows == user
        alone = (ranked[[user]], rows[mine] * 0, items[mine], relevant[[user]])
        for values, value in zip(together, recall_and_ndcg(alone, k), strict=True):
            assert values[user] == value[0]


def test_equal_to_ranx():
    from ranx.metrics import ndcg, recall

    generator = torch.Generator().manual_seed(0)
    num_users, width = 300, 20
    order = torch.rand(num_users, NUM_ITEMS, generator=generator).argsort(dim=1) + 1
    lengths = torch.randint(width + 1, (num_users, 1), generator=generator)
    ranked = order[:, :width] * (torch.arange(width) < lengths)
    held_out = torch.rand(num_users, NUM_ITEMS + 1, generator=generator) < 0.3
    # ranx has no unknown items: an item that no list can hold, 99, stands for them.
    rows, items = held_out.nonzero(as_tuple=True)
    relevant = torch.bincount(rows, minlength=num_users)
    hits = hit_matrix(ranked, rows, items, NUM_ITEMS)

    # ranx's arrays: (id, relevance) in descending relevance, and (id, score) in descending score.
    by_relevance = held_out.to(torch.float64).sort(dim=1, descending=True)
    ids = torch.where(by_relevance.indices == 0, 99, by_relevance.indices)
    qrels = torch.stack([ids, by_relevance.values], dim=2).numpy()
    scores = -torch.arange(width, dtype=torch.float64).expand(num_users, width)
    run = torch.stack([ranked.double() - (ranked == 0).double(), scores], dim=2).numpy()
    assert 0 in lengths
    assert 0 in items
    for k in (1, 5, 10, width):
        expected = recall(qrels, run, k), ndcg(qrels, run, k)
        assert recall_at_k(hits, relevant, k).numpy() == pytest.approx(expected[0])
        assert ndcg_at_k(hits, relevant, k).numpy() == pytest.approx(expected[1])


def test_intra_list_diversity_is_the_mean_distance_of_pairs():
    vectors = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    ranked = torch.tensor([[1, 2, 3], [1, 3, 0], [1, 2, 0]])
    # Distances: 1-2 is 1, 1-3 is 0.4, 2-3 is 0.2.
    expected = [(1 + 0.4 + 0.2) / 3, 0.4, 1.0]
    assert intra_list_diversity(ranked, 3, vectors).tolist() == pytest.approx(expected)
    assert intra_list_diversity(ranked, 2, vectors).tolist() == pytest.approx([1.0, 0.4, 1.0])


def test_a_list_without_pairs_has_no_diversity():
    vectors = torch.tensor([[0.0], [1.0]])
    assert intra_list_diversity(torch.tensor([[1, 0], [0, 0]]), 2, vectors).tolist() == [0, 0]
