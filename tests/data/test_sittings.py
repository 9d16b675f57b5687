"""Which events share a sitting, and what gap between events is typical."""

import numpy as np
import pytest

from recsys.data.histories import Histories
from recsys.data.sittings import sittings, typical_gap


def test_a_sitting_is_of_one_user_and_short() -> None:
    times = np.array([0, 10, 5000, 5010, 5020, 0, 90])
    users = np.array([1, 1, 1, 1, 1, 2, 2])
    train = Histories.from_indices(users, np.arange(1, 8), times, 2)
    numbers = [sittings(train, 60, np.random.default_rng(seed)) for seed in range(200)]
    together = np.mean([number[:, None] == number for number in numbers], axis=0)
    assert together[0, 1] == pytest.approx(1 - 10 / 60, abs=0.08)
    assert together[2, 4] == pytest.approx(1 - 20 / 60, abs=0.08)
    assert together[0, 2] == together[4, 5] == together[5, 6] == 0.0


def test_a_typical_gap_is_between_events_of_one_user_at_different_times() -> None:
    users, times = np.array([1, 1, 1, 2, 2, 2]), np.array([0, 0, 40, 10**6, 10**6 + 20, 10**6 + 80])
    train = Histories.from_indices(users, np.arange(1, 7), times, 2)
    assert typical_gap(train) == 40.0
    alone = Histories.from_indices(np.array([1, 2]), np.array([1, 2]), np.array([0, 9]), 2)
    assert typical_gap(alone) == 0.0
