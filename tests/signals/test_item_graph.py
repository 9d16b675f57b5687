"""Co-occurrence graphs by hand, and against brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.histories import Histories
from recsys.signals.item_graph import (
    ItemGraph,
    co_occurrence_counts,
    co_occurrence_graphs,
    session_sums,
)

NUM_ITEMS = 6
EVENTS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, NUM_ITEMS), st.integers(0, 1000)),
    min_size=1,
    max_size=30,
    unique_by=lambda event: event[:2],
)


def histories(events: list[tuple[int, int, int]]) -> Histories:
    users, items, times = (np.array(column, dtype=np.int64) for column in zip(*events, strict=True))
    return Histories.from_indices(users, items, times, num_users=4)


def dense(graph: ItemGraph) -> torch.Tensor:
    weights = torch.zeros((NUM_ITEMS + 1) ** 2)
    weights[graph.keys] = graph.weights
    return weights.view(NUM_ITEMS + 1, -1)


def test_two_events_a_time_scale_apart_count_half_in_a_session() -> None:
    session, plain = co_occurrence_graphs(
        histories([(1, 2, 0), (1, 5, 100)]), NUM_ITEMS, time_scale=100.0, shrinkage=3.0
    )
    assert dense(session)[2, 5] == pytest.approx(0.5 / (1 + 3))
    assert dense(plain)[2, 5] == pytest.approx(1.0 / (1 + 3))
    assert int((dense(plain) > 0).sum()) == 2


@settings(max_examples=60, deadline=None)
@given(events=EVENTS)
def test_graphs_equal_brute_force(events: list[tuple[int, int, int]]) -> None:
    graphs = co_occurrence_graphs(histories(events), NUM_ITEMS)
    expected = torch.zeros(2, NUM_ITEMS + 1, NUM_ITEMS + 1)
    counts = torch.zeros(NUM_ITEMS + 1)
    for user, item, time in events:
        counts[item] += 1
        for other_user, other, other_time in events:
            if user == other_user and item != other:
                expected[0, item, other] += 1 / (1 + abs(time - other_time) / 100)
                expected[1, item, other] += 1
    expected /= (counts[:, None] * counts[None, :]).sqrt() + 5.0
    torch.testing.assert_close(torch.stack([dense(graph) for graph in graphs]), expected)


def test_only_the_strongest_neighbours_are_kept() -> None:
    # Item 1 is seen with 2 (twice), 3 and 4; each of those keeps item 1 as its strongest.
    events = [(1, 1, 0), (1, 2, 0), (2, 1, 0), (2, 2, 0), (3, 1, 0), (3, 3, 900)]
    session, _ = co_occurrence_graphs(histories(events), NUM_ITEMS, max_neighbors=1)
    weights = dense(session)
    assert torch.equal(weights, weights.T)
    assert weights[1].argmax() == 2
    assert set(session.keys.tolist()) == {1 * 7 + 2, 2 * 7 + 1, 1 * 7 + 3, 3 * 7 + 1}


def test_events_beyond_the_window_do_not_count() -> None:
    events = [(1, 1, 0), (1, 2, 1), (1, 3, 2)]
    _, plain = co_occurrence_graphs(histories(events), NUM_ITEMS, window=1)
    assert dense(plain)[1, 2] > 0
    assert dense(plain)[1, 3] == 0


def test_without_pairs_the_graph_is_empty() -> None:
    _, plain = co_occurrence_graphs(histories([(1, 1, 0), (2, 2, 0)]), NUM_ITEMS)
    assert len(plain.keys) == 0
    assert not dense(plain).any()


def session_kernel(times: np.ndarray, *, window: int, taper: bool) -> np.ndarray:
    """Of one user with an event of each item, the events' own places on the diagonal included."""
    count = len(times)
    log = Histories.from_indices(np.ones(count, np.int64), np.arange(1, count + 1), times, 1)
    session, _ = co_occurrence_counts(log, count, window=window, taper=taper)
    return session.toarray()[1:, 1:].astype(np.float64) + np.eye(count)


@pytest.mark.parametrize("spread", [5, 50, 5000])
def test_a_tapered_window_is_positive_semidefinite(spread: int) -> None:
    times = np.sort(np.random.default_rng(0).integers(0, spread + 1, 90)).astype(np.int64)
    lowest = {
        taper: np.linalg.eigvalsh(session_kernel(times, window=20, taper=taper))[0]
        for taper in (False, True)
    }
    assert lowest[True] > -1e-5
    if spread < 5000:
        assert lowest[False] < -0.5  # what the taper is for


def test_a_window_that_cuts_nothing_is_not_tapered() -> None:
    times = np.arange(21, dtype=np.int64) * 7
    plain, tapered = (session_kernel(times, window=20, taper=taper) for taper in (False, True))
    assert (plain == tapered).all()
    longer = np.append(times, 200)
    assert (session_kernel(longer, window=20, taper=True)[0, 20]) < plain[0, 20]


@settings(max_examples=30, deadline=None)
@given(events=EVENTS)
def test_events_without_order_are_counted_together(
    events: list[tuple[int, int, int]],
) -> None:
    log = histories([(user, item, 7) for user, item, _ in events])
    session, plain = co_occurrence_counts(log, NUM_ITEMS)
    expected = np.zeros((NUM_ITEMS + 1, NUM_ITEMS + 1))
    for one in range(len(events)):
        for other in range(len(events)):
            if one != other and log.user_idx[one] == log.user_idx[other]:
                expected[log.item_idx[one], log.item_idx[other]] += 1
    assert (session.toarray() == expected).all()
    assert (plain.toarray() == expected).all()


@settings(max_examples=30, deadline=None)
@given(events=EVENTS)
def test_session_sums_count_what_the_second_event_is_worth(
    events: list[tuple[int, int, int]],
) -> None:
    given_histories = histories(events)
    values = np.arange(1, len(events) + 1, dtype=np.float32)
    found = session_sums(given_histories, NUM_ITEMS, values, time_scale=50.0).toarray()
    expected = np.zeros((NUM_ITEMS + 1, NUM_ITEMS + 1))
    users, items = given_histories.user_idx, given_histories.item_idx
    for one in range(len(events)):
        for other in range(len(events)):
            if one != other and users[one] == users[other]:
                gap = abs(given_histories.timestamps[one] - given_histories.timestamps[other])
                expected[items[one], items[other]] += values[other] / (1 + gap / 50)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
