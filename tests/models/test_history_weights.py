"""How much events count in a query: by how long the history is, by recency, by strength."""

import pytest
import torch

from recsys.models.history_weights import (
    EventCounting,
    event_counts,
    history_weights,
    recency_weights,
)

MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)
WEIGHTS = torch.tensor([[4.0, 1.0, 0.25, 1.0, 0.0], [9.0, 0.0, 0.0, 0.0, 0.0]])


@pytest.mark.parametrize(("exponent", "four", "one"), [(0.5, 0.5, 1.0), (0.0, 1.0, 1.0)])
def test_history_weights_are_a_power_of_the_length(exponent, four, one) -> None:
    mask = torch.tensor([[True, True, True, True], [True, False, False, False]])
    assert history_weights(mask, exponent).tolist() == [[four] * 4, [one, 0.0, 0.0, 0.0]]


def test_an_event_counts_half_when_as_many_came_after_as_the_half_life_says() -> None:
    expected = [[0.125, 0.25, 0.5, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]]
    torch.testing.assert_close(recency_weights(MASK, 1.0), torch.tensor(expected))
    by_length = history_weights(MASK, 0.5, recency_weights(MASK, 1.0))
    torch.testing.assert_close(by_length[0, 3], torch.tensor(1.875**-0.5))
    slow = history_weights(MASK, 0.5, recency_weights(MASK, 1e9))
    torch.testing.assert_close(slow, history_weights(MASK, 0.5))


def test_an_event_counts_a_power_of_its_weight() -> None:
    found = event_counts(MASK, WEIGHTS, EventCounting(None, 0.5))
    assert found is not None
    assert found.tolist() == [[2.0, 1.0, 0.5, 1.0, 0.0], [3.0, 0.0, 0.0, 0.0, 0.0]]
    both = event_counts(MASK, WEIGHTS, EventCounting(1.0, 0.5))
    torch.testing.assert_close(both, found * recency_weights(MASK, 1.0))


def test_without_an_exponent_or_weights_strengths_do_not_count() -> None:
    assert event_counts(MASK, WEIGHTS, EventCounting()) is None
    assert event_counts(MASK, None, EventCounting(None, 1.0)) is None
    by_recency = event_counts(MASK, None, EventCounting(2.0, 1.0))
    assert by_recency is not None
    assert torch.equal(by_recency, recency_weights(MASK, 2.0))
