"""Signals: window counts by brute force; padding, batches and empty slots change nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.histories import Histories, latest_events
from recsys.schema import HistoryBatch
from recsys.signals.extractor import SignalExtractor, signal_names
from recsys.signals.item_graph import co_occurrence_graphs

DAY = 86_400
NUM_ITEMS = 9


def extractor_of(histories: Histories) -> SignalExtractor:
    generator = torch.Generator().manual_seed(0)
    text = torch.nn.functional.normalize(torch.randn(NUM_ITEMS, 5, generator=generator), dim=1)
    session, plain = co_occurrence_graphs(histories, NUM_ITEMS)
    text = torch.nn.functional.pad(text, (0, 0, 1, 0))
    return SignalExtractor(histories, NUM_ITEMS, session, plain, text)


@pytest.fixture
def histories() -> Histories:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(1, 7), 5)
    items = np.concatenate([rng.permutation(NUM_ITEMS)[:5] + 1 for _ in range(6)])
    return Histories.from_indices(users, items, rng.integers(0, 60 * DAY, 30), 6)


@pytest.fixture
def extractor(histories: Histories) -> SignalExtractor:
    return extractor_of(histories)


def test_there_is_one_name_per_signal(histories, extractor) -> None:
    candidates = torch.tensor([[7, 8, 9]])
    signals = extractor.signals(histories.pad(np.array([1])), candidates, torch.rand(1, 3, 2))
    assert signals.shape == (1, 3, len(signal_names(2)))
    assert signal_names(2)[0] == "score"


@settings(max_examples=100, deadline=None)
@given(
    times=st.lists(st.integers(0, 100 * DAY), min_size=1, max_size=12),
    now=st.integers(-400 * DAY, 400 * DAY),
    days=st.sampled_from([1, 7, 30]),
    data=st.data(),
)
def test_window_counts_equal_brute_force(times, now, days, data) -> None:
    items = data.draw(st.lists(st.integers(1, 3), min_size=len(times), max_size=len(times)))
    histories = Histories.from_indices(
        np.ones(len(times), np.int64), np.array(items), np.array(times), 1
    )
    width = days * DAY
    windows = extractor_of(histories).windows
    count, total = windows(torch.tensor([[1, 2, 3]]), torch.tensor([now]), width)
    # Far outside of the training data, the window is the one just beyond its border.
    near = min(max(now, min(times) - 60 * DAY), max(times) + 60 * DAY)
    inside = [near - width <= time < near for time in times]
    hits = [item for item, hit in zip(items, inside, strict=True) if hit]
    expected = [hits.count(item) for item in (1, 2, 3)]
    assert count[0].tolist() == expected
    assert total.tolist() == [sum(inside)]


def test_signals_do_not_change_by_what_comes_after_the_last_event_of_the_history() -> None:
    """The windows of a history that ends at 40 days do not see the events from then on."""
    now = 40 * DAY
    users, items = np.array([1, 2, 2, 3, 3, 3]), np.array([1, 2, 3, 2, 3, 3])
    before = np.array([now, now - 1, now - 5 * DAY])
    windows = [n for n, name in enumerate(signal_names(1)) if name.endswith("d")]
    assert len(windows) == 6

    def signals(later: list[int]) -> torch.Tensor:
        histories = Histories.from_indices(users, items, np.array([*before, *later]), 3)
        extractor = extractor_of(histories)
        batch = histories.pad(np.array([1]))
        return extractor.signals(batch, torch.tensor([[2, 3]]), torch.zeros(1, 2, 1))[..., windows]

    expected = signals([now, now + DAY // 2, now + 3 * DAY])
    assert torch.equal(expected, signals([now + 50 * DAY, now + 70 * DAY, now + 90 * DAY]))
    assert not torch.equal(expected, signals([now - DAY // 2, now - DAY // 2, now]))


def test_a_row_does_not_depend_on_its_batch_or_on_empty_slots(histories, extractor) -> None:
    candidates = torch.tensor([[7, 8, 9, 0], [1, 2, 3, 4]])
    scores = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(1))
    scores[0, 3] = 99.0  # whatever stands in an empty slot
    together = extractor.signals(histories.pad(np.array([1, 2])), candidates, scores)
    alone = extractor.signals(histories.pad(np.array([1])), candidates[:1, :3], scores[:1, :3])
    torch.testing.assert_close(together[:1, :3], alone)
    assert not together[0, 3].any()


def test_padding_of_the_history_changes_nothing(histories, extractor) -> None:
    history = histories.pad(np.array([1]))
    wider = HistoryBatch(
        *(torch.nn.functional.pad(part, (0, 4)) for part in history[:3]), history.context
    )
    candidates, scores = torch.tensor([[7, 8, 9]]), torch.rand(1, 3, 1)
    torch.testing.assert_close(
        extractor.signals(history, candidates, scores), extractor.signals(wider, candidates, scores)
    )


def test_an_empty_history_has_finite_signals(extractor) -> None:
    none = torch.zeros(1, 1, dtype=torch.long)
    signals = extractor.signals(
        HistoryBatch(none, none, none > 0, torch.zeros(1, 0)),
        torch.tensor([[1, 2]]),
        torch.rand(1, 2, 1),
    )
    assert torch.isfinite(signals).all()


def test_the_session_signal_prefers_what_was_seen_at_the_same_time() -> None:
    users = np.array([1, 1, 2, 2, 3])
    items = np.array([1, 2, 1, 3, 1])
    times = np.array([0, 5, 0, 50_000, 0])  # 2 in the same sitting as 1, 3 much later
    histories = Histories.from_indices(users, items, times, 3)
    pairs = extractor_of(histories).pairs(torch.tensor([[2, 3]]), torch.tensor([[1]]))
    session, plain = pairs[0, :, 0, 0], pairs[0, :, 0, 1]
    assert session[0] > 10 * session[1]
    assert plain[0] == plain[1]


def test_feedback_is_the_mean_likeness_to_the_other_top_candidates(histories, extractor) -> None:
    candidates = torch.tensor([[7, 2, 5, 0]])
    found = extractor._feedback(candidates)
    pairs = extractor.pairs(candidates, candidates)
    expected = (pairs[0, 0, 1] + pairs[0, 0, 2]) / 2.0
    torch.testing.assert_close(found[0, 0], expected)


def test_feedback_of_a_single_candidate_is_nothing(extractor) -> None:
    assert not extractor._feedback(torch.tensor([[7, 0]]))[0, 0].any()


def test_latest_events_keeps_the_end_of_each_history() -> None:
    item_idx = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    batch = latest_events(HistoryBatch(item_idx, item_idx * 10, item_idx > 0, torch.zeros(2, 0)), 3)
    assert batch.item_idx.tolist() == [[2, 3, 4], [5, 6, 0]]
    assert batch.timestamps.tolist() == [[20, 30, 40], [50, 60, 0]]
    assert batch.mask.tolist() == [[True] * 3, [True, True, False]]


def test_the_cross_encoder_reads_the_latest_events(histories, extractor) -> None:
    candidates = torch.tensor([[7, 8]])
    history = histories.pad(np.array([1]))
    batch = extractor.ranking_batch(history, candidates, torch.zeros(1, 2, 3), max_history=2)
    assert batch.history.tolist() == history.item_idx[:, -2:].tolist()
    assert batch.history_age[0, 1] == 0
    assert batch.history_age[0, 0] > 0
    assert batch.pairs.shape[:3] == (1, 2, 2)


def test_affinity_prefers_what_users_of_the_same_attribute_have() -> None:
    """Users 1 to 4 have attribute 0 and item 1, users 5 to 8 attribute 1 and item 2; all have 3."""
    users = np.concatenate([np.arange(1, 9), np.arange(1, 9)])
    items = np.array([1] * 4 + [2] * 4 + [3] * 8)
    context = np.repeat(np.eye(2, dtype=np.float32), 4, axis=0)
    context = np.concatenate([np.zeros((1, 2), np.float32), context])
    histories = Histories.from_indices(users, items, np.arange(16), 8, context)
    extractor = extractor_of(histories)
    column = signal_names(1).index("context_affinity")
    batch = histories.pad(np.array([1, 5]))
    candidates = torch.tensor([[1, 2, 3], [1, 2, 3]])
    affinity = extractor.signals(batch, candidates, torch.rand(2, 3, 1))[:, :, column]
    assert affinity[0, 0] > 0.2 > -0.2 > affinity[0, 1]
    assert affinity[1, 1] > 0.2 > -0.2 > affinity[1, 0]
    torch.testing.assert_close(affinity[:, 2], torch.zeros(2), atol=1e-5, rtol=0)
