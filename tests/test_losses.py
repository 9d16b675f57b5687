"""Losses against hand-computed values, brute force, and each other."""

import math

import pytest
import torch
from torch import Tensor

from recsys import losses

HISTORY = torch.tensor([[1, 2, 0], [3, 1, 4]])
VISIBLE = torch.tensor([[True, False, False], [False, True, False]])
HELD_OUT = torch.tensor([[False, True, False], [True, False, True]])
COUNTS = torch.tensor([0, 5, 3, 2, 1, 1])


@pytest.fixture
def embeddings() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, generator=generator), torch.randn(6, 3, generator=generator)


def lookup(table: Tensor) -> losses.CandidateFn:
    return lambda item_idx: table[item_idx]


def test_full_softmax_is_cross_entropy_without_the_visible_items(embeddings) -> None:
    query, table = embeddings
    loss = losses.full_softmax(query, lookup(table), HISTORY, VISIBLE, HELD_OUT, COUNTS)
    expected = []
    for row, seen, targets in ((0, {1}, [2]), (1, {1}, [3, 4])):
        scores = {i: float(query[row] @ table[i]) for i in range(1, 6) if i not in seen}
        total = math.log(sum(math.exp(s) for s in scores.values()))
        expected += [total - scores[t] for t in targets]
    assert float(loss) == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_sampled_softmax_approaches_the_full_one_with_many_samples(embeddings) -> None:
    """With the right sign of logQ; with the wrong one it is off by far more than the tolerance."""
    query, table = embeddings
    counts = torch.tensor([0, 500, 3, 2, 1, 40])
    # Nothing visible and one target each: the two losses then have the same denominator.
    history = torch.tensor([[2], [4]])
    none = torch.zeros_like(history, dtype=torch.bool)
    arguments = (query, lookup(table), history, none, ~none, counts)
    torch.manual_seed(0)
    sampled = losses.sampled_softmax(*arguments, num_negatives=200_000, exponent=0.75)
    full = losses.full_softmax(*arguments)
    assert float(sampled) == pytest.approx(float(full), abs=0.02)


def test_sampled_softmax_gradient_matches_the_full_one(embeddings) -> None:
    query, table = embeddings
    history = torch.tensor([[2], [4]])
    none = torch.zeros_like(history, dtype=torch.bool)
    gradients = []
    for loss in (losses.full_softmax, losses.sampled_softmax):
        torch.manual_seed(1)
        weights = table.clone().requires_grad_()
        options = {} if loss is losses.full_softmax else {"num_negatives": 200_000}
        loss(query, lookup(weights), history, none, ~none, COUNTS, **options).backward()
        gradients.append(weights.grad)
    torch.testing.assert_close(gradients[0], gradients[1], atol=0.02, rtol=0)


def test_accidental_hits_are_the_users_own_items() -> None:
    hits = losses.accidental_hits(torch.tensor([1, 4, 5]), HISTORY, VISIBLE | HELD_OUT)
    assert hits.tolist() == [[True, False, False], [True, True, False]]


def test_sampled_softmax_ignores_a_negative_that_is_the_target(embeddings) -> None:
    """With a single possible negative, the target itself, nothing is left to discriminate."""
    query, table = embeddings
    history = torch.tensor([[1], [1]])
    held_out = torch.ones_like(history, dtype=torch.bool)
    loss = losses.sampled_softmax(
        query, lookup(table), history, ~held_out, held_out, torch.tensor([0, 3]), num_negatives=8
    )
    assert float(loss) == 0.0


def test_listwise_softmax_by_hand() -> None:
    scores = torch.tensor([[0.0, math.log(3.0), -math.inf], [1.0, 1.0, 1.0]])
    relevance = torch.tensor([[True, False, False], [True, True, False]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    # First list: 1 of 1 + 3. Second: two relevant, each 1 of 2 against the one other candidate.
    second = math.log(2) * (1.0 + 1.0 / math.log2(3)) / 2
    expected = (math.log(4) + second) / 2
    assert float(losses.listwise_softmax(scores, relevance, mask)) == pytest.approx(expected)


def test_listwise_softmax_weighs_by_the_rank_before_reranking() -> None:
    scores = torch.tensor([[0.0, 0.0, 1.0]])
    relevance, mask = torch.tensor([[True, False, True]]), torch.ones(1, 3, dtype=torch.bool)
    first, third = math.log(2), math.log(1 + math.exp(-1))
    expected = (first * 1.0 + third * 0.5) / 2
    assert float(losses.listwise_softmax(scores, relevance, mask)) == pytest.approx(expected)


def test_listwise_softmax_weighs_a_list_by_how_high_its_relevant_candidates_stand() -> None:
    """A list whose only hit is at the end matters little to NDCG."""
    scores, mask = torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool)
    first, last = (torch.tensor([row]) for row in ([True, False, False], [False, False, True]))
    high, low = (float(losses.listwise_softmax(scores, one, mask)) for one in (first, last))
    assert low == pytest.approx(high / 2)


def test_listwise_softmax_of_a_list_without_hits_is_zero_and_has_a_finite_gradient() -> None:
    scores = torch.zeros(2, 3)
    scores[1, 2] = -torch.inf
    scores.requires_grad_()
    relevance = torch.tensor([[False] * 3, [True, False, False]])
    loss = losses.listwise_softmax(scores, relevance, scores > -1)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(2))
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert not scores.grad[0].any()


@pytest.mark.parametrize("loss", [losses.full_softmax, losses.sampled_softmax])
def test_padding_changes_nothing(loss, embeddings) -> None:
    query, table = embeddings
    wider = [torch.nn.functional.pad(t, (0, 4)) for t in (HISTORY, VISIBLE, HELD_OUT)]
    values = []
    for arguments in ([HISTORY, VISIBLE, HELD_OUT], wider):
        torch.manual_seed(0)
        values.append(float(loss(query, lookup(table), *arguments, COUNTS)))
    assert values[0] == pytest.approx(values[1], rel=1e-6)


WEIGHTS = torch.tensor([[1.0, 0.5, 0.0], [2.0, 1.0, 4.0]])


@pytest.mark.parametrize("loss", [losses.full_softmax, losses.sampled_softmax])
def test_softmax_losses_are_means_by_weight(loss, embeddings) -> None:
    query, table = embeddings

    def value(weights: Tensor) -> float:
        torch.manual_seed(0)
        arguments = HISTORY, VISIBLE, HELD_OUT, COUNTS, weights
        return float(loss(query, lookup(table), *arguments))

    total = 0.0
    for row, column in ((0, 1), (1, 0), (1, 2)):
        alone = torch.zeros_like(WEIGHTS)
        alone[row, column] = 1.0
        total += float(WEIGHTS[row, column]) * value(alone)
    # The visible events' weights do not count.
    assert value(WEIGHTS) == pytest.approx(total / (0.5 + 2.0 + 4.0), rel=1e-5)


@pytest.mark.parametrize("loss", [losses.full_softmax, losses.sampled_softmax])
def test_weights_of_one_change_no_digit(loss, embeddings) -> None:
    query, table = embeddings
    values = []
    for weights in (None, torch.ones(2, 3)):
        torch.manual_seed(0)
        arguments = query, lookup(table), HISTORY, VISIBLE, HELD_OUT, COUNTS, weights
        values.append(float(loss(*arguments)))
    assert values[0] == values[1]


def test_listwise_softmax_weighs_by_gains_within_and_among_lists() -> None:
    scores = torch.zeros(3, 2)
    relevance = torch.tensor([[True, False], [False, True], [False, False]])
    mask = torch.ones(3, 2, dtype=torch.bool)
    gains = torch.tensor([[5.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    first, second = math.log(2), math.log(2) / math.log2(3)
    found = losses.listwise_softmax(scores, relevance, mask, None, gains)
    assert float(found) == pytest.approx((5 * first + second) / 6)
    both = torch.tensor([[True, True, False]])
    found = losses.listwise_softmax(
        torch.zeros(1, 3), both, torch.ones_like(both), None, torch.tensor([[3.0, 1.0, 0.0]])
    )
    assert float(found) == pytest.approx((3 * first + second) / 4)
    alike = losses.listwise_softmax(scores, relevance, mask)
    assert float(alike) == float(
        losses.listwise_softmax(scores, relevance, mask, None, relevance.float())
    )
