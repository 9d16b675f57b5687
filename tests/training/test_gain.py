"""Whether stage 2 pays: events count by their weights, users once."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.training.gain import Gain, ListGain, gain_on_kept_lists
from recsys.training.reranking import LabelledBatch

USERS = 40


class Reordering(torch.nn.Module):
    """A stage 2 that puts each list's candidates into the given order. scores: float [K]."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = torch.tensor(scores)

    def tokens(self, text: Tensor) -> SimpleNamespace:
        return SimpleNamespace(candidates=text, history=text)

    def forward(self, inputs: object) -> Tensor:
        return self.scores.expand(USERS, -1)


class Inputs:
    candidate_tokens = history_tokens = None

    def _replace(self, **_: object) -> "Inputs":
        return self


def kept(gains: list[float] | Tensor, wanted: list[float], users: np.ndarray | None = None):
    """Lists of candidates in stage 1's order: [K], the same for each, or [USERS, K]."""
    own = torch.as_tensor(gains).expand(USERS, -1)
    batch = LabelledBatch(
        Inputs(),
        torch.ones(own.shape, dtype=torch.bool),
        torch.arange(1, own.shape[1] + 1).expand(USERS, -1),
        own > 0,
        torch.full((USERS,), len(wanted)),
        own,
        torch.tensor(wanted).expand(USERS, -1),
    )
    users = np.arange(1, USERS + 1) if users is None else users
    fold = SimpleNamespace(user_idx=users)
    return SimpleNamespace(
        folds=[fold], kept_rows=[np.arange(USERS)], val_dataloader=lambda: [batch]
    )


def test_stage_1s_order_gains_nothing() -> None:
    found = gain_on_kept_lists(Reordering([3.0, 2.0, 1.0]), kept([0.0, 1.0, 1.0], [1.0, 1.0]))
    assert found == ListGain(Gain(0.0, 0.0, 0.0), Gain(0.0, 0.0, 0.0))
    assert not found.pays


def test_a_purchase_in_front_of_a_view_is_a_gain() -> None:
    found = gain_on_kept_lists(Reordering([1.0, 2.0]), kept([1.0, 10.0], [10.0, 1.0]))
    second = 1 / np.log2(3)
    expected = 1.0 - (1.0 + 10.0 * second) / (10.0 + second)
    assert found.top.mean == pytest.approx(expected)
    assert found.pays


def test_what_stage_1_has_missed_counts_in_the_ideal_list() -> None:
    found = gain_on_kept_lists(Reordering([1.0, 2.0]), kept([0.0, 1.0], [1.0, 1.0]))
    second = 1 / np.log2(3)
    assert found.top.mean == pytest.approx((1.0 - second) / (1.0 + second))


def test_a_users_lists_count_as_one() -> None:
    """Half of the lists, all of one user, lose what the others gain."""
    half = USERS // 2
    gains = torch.tensor([[1.0, 0.0]] * half + [[0.0, 1.0]] * half)
    lists = kept(gains, [1.0], users=np.maximum(np.arange(USERS), half - 1))
    found = gain_on_kept_lists(Reordering([1.0, 2.0]), lists)
    assert found.top.mean == pytest.approx((1.0 - 1 / np.log2(3)) * (half - 1) / (half + 1))
