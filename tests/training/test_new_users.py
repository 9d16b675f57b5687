"""What is fitted for new users: on planted data the planted answer, on noise none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.histories import Histories
from recsys.models.new_users import NewUserGate
from recsys.training.new_users import (
    UNFITTED,
    Newcomers,
    Requests,
    _popularity_at_arrival,
    choose_gate,
    choose_half_life,
    draw_newcomers,
    fit_new_users,
    requests_of,
)

DAY = 86_400


def log_of(num_users: int, num_events: int, num_items: int, seed: int = 0) -> Histories:
    """Users who come one a day, with random items one a minute."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(1, num_users + 1), num_events)
    items = np.concatenate([rng.permutation(num_items)[:num_events] for _ in range(num_users)]) + 1
    times = users * DAY + np.tile(np.arange(num_events), num_users) * 60
    return Histories.from_indices(users, items, times, num_users)


def test_newcomers_came_late_and_have_no_events_left() -> None:
    log = log_of(300, 8, 40)
    newcomers = draw_newcomers(log, seed=0)
    assert newcomers is not None
    assert len(newcomers.users) == 60
    assert (newcomers.users >= 150).all()
    assert (np.diff(newcomers.users) > 0).all()
    assert (newcomers.given == 4).all()
    assert not newcomers.remaining.lengths[newcomers.users].any()
    assert len(newcomers.remaining) == len(log) - 60 * 8


def test_with_few_users_nothing_is_fitted() -> None:
    def fail(_: Histories) -> None:
        raise AssertionError("no stage 1 is needed")

    log = log_of(40, 8, 40)
    assert draw_newcomers(log, seed=0) is None
    assert fit_new_users(log, 40, fail, 100, 0) == UNFITTED


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), half_life=st.sampled_from([7.0, 365.0, None]))
def test_popularity_at_arrival_equals_brute_force(seed: int, half_life: float | None) -> None:
    log = log_of(200, 6, 12, seed)
    newcomers = draw_newcomers(log, seed)
    assert newcomers is not None
    counts = list(_popularity_at_arrival(log, newcomers, 12, half_life))
    rest = newcomers.remaining
    for user, found in list(zip(newcomers.users, counts, strict=True))[::13]:
        arrival = log.timestamps[log.offsets[user]]
        before = rest.timestamps < arrival
        ages = (arrival - rest.timestamps[before]) / DAY
        weights = np.ones(len(ages)) if half_life is None else 0.5 ** (ages / half_life)
        expected = np.bincount(rest.item_idx[before], weights, minlength=13)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def drifting(num_users: int, days: int) -> Histories:
    """Each user has the ten items that are in fashion; fashions last so many days."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(1, num_users + 1), 10)
    items = (users // days) % 6 * 10 + np.concatenate(
        [rng.permutation(10) for _ in range(num_users)]
    )
    times = users * DAY + np.tile(np.arange(10), num_users)
    return Histories.from_indices(users, items + 1, times, num_users)


@pytest.mark.parametrize(("days", "expected"), [(10, 7.0), (10_000, None)])
def test_the_half_life_follows_how_fast_fashions_change(days: int, expected: float | None) -> None:
    log = drifting(300, days)
    newcomers = draw_newcomers(log, seed=0)
    assert newcomers is not None
    assert choose_half_life(log, newcomers, 60) == expected


def planted(popularity_helps_when_open: bool) -> Requests:
    """Two candidates a request, one relevant: stage 1 prefers column 0, popularity column 1.

    Of histories with a lift of 1 popularity is right, of those with -1 stage 1; or, not planted,
    stage 1 is right of all.
    """
    number = 200
    opening = torch.tensor([1.0, -1.0]).repeat(number // 2)
    popular = (opening > 0) & popularity_helps_when_open
    relevant = torch.zeros(number, 12, dtype=torch.bool)
    # Ten columns that are better than the right one hide it.
    scores = torch.tensor([[1.0] * 11 + [0.0]]).repeat(number, 1)
    scores[:, 0] = 2.0
    popularity = torch.tensor([[0.0] * 11 + [3.0]]).repeat(number, 1)
    relevant[~popular, 0] = True
    relevant[popular, 11] = True
    group = torch.arange(number) % 2
    ones = torch.ones(number, dtype=torch.long)
    moments = torch.zeros(number, 1), torch.ones(number, 1)
    return Requests(scores, popularity, relevant, *moments, ones, opening, group, ones)


def test_the_gate_opens_for_histories_that_tell_little() -> None:
    gate = choose_gate(planted(popularity_helps_when_open=True))
    assert gate is not None
    shares = gate.shares(torch.tensor([1.0, -1.0]), torch.tensor([1, 1]))
    assert shares[0] > 0.5 > shares[1]


def test_there_is_no_gate_where_stage_1_is_right() -> None:
    assert choose_gate(planted(popularity_helps_when_open=False)) is None


class _Model(torch.nn.Module):
    """Scores the items next to those of the history."""

    num_items = 200

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[tuple[torch.Tensor, torch.Tensor]] = []

    def candidates(self, item_idx: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(item_idx, self.num_items + 1).float()

    def query(
        self,
        history: torch.Tensor,
        mask: torch.Tensor,
        context: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        self.weights.append((history, weights))
        following = (history % self.num_items + 1) * mask
        found = torch.nn.functional.one_hot(following, self.num_items + 1).float().sum(dim=1)
        found[:, 0] = 0
        return found


def test_requests_hold_the_best_by_stage_1_and_the_most_popular_once_each() -> None:
    log = log_of(200, 8, 200)
    newcomers = draw_newcomers(log, seed=0)
    assert newcomers is not None
    requests = requests_of(log, newcomers, _Model(), None, 2, 0)  # type: ignore[arg-type]
    # After 1 and 3 of the four events that may be given, by time and in random order.
    assert len(requests.number) == 4 * len(newcomers.users)
    assert requests.number[:4].tolist() == [1, 3, 1, 3]
    assert requests.group[:4].tolist() == [0, 2, 1, 3]
    assert (requests.num_relevant == 4).all()
    real = requests.scores > -torch.inf
    assert (requests.relevant & ~real).sum() == 0  # what is given is never relevant
    # The latest two events make the query: two scores of 1 at most.
    assert requests.scores[real].max() <= 2
    own = log.item_idx[log.offsets[newcomers.users[0]] :][:8]
    later = set(own[4:].tolist())
    assert int(requests.relevant[0].sum()) <= len(later)


def test_queries_of_newcomers_read_the_weights_of_their_events() -> None:
    log = log_of(200, 8, 200)
    log = replace(log, weights=1.0 + (log.item_idx % 5).astype(np.float32))
    newcomers = draw_newcomers(log, seed=0)
    assert newcomers is not None
    model = _Model()
    requests_of(log, newcomers, model, None, 2, 0)  # type: ignore[arg-type]
    mean = float(log.weights.mean())
    for history, weights in model.weights:
        expected = torch.where(history > 0, (1.0 + history % 5) / mean, 0.0)
        torch.testing.assert_close(weights, expected)


def test_the_fit_trains_on_the_others_alone_and_is_repeatable() -> None:
    log = log_of(300, 8, 200)
    told: list[Histories] = []

    def fit(rest: Histories) -> _Model:
        told.append(rest)
        return _Model()

    found = [fit_new_users(log, 200, fit, 100, 0) for _ in range(2)]  # type: ignore[arg-type]
    assert found[0] == found[1]
    assert len(told[0]) == len(log) - 60 * 8
    assert found[0].gate is None or isinstance(found[0].gate, NewUserGate)
    assert isinstance(draw_newcomers(log, 1), Newcomers)
