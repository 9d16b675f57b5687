"""Signals of lists: by hand where that is short; padding and batches change nothing."""

import numpy as np
import pytest
import torch

from recsys.data.histories import Histories
from recsys.schema import HistoryBatch
from recsys.signals.extractor import SignalExtractor
from recsys.signals.list_signals import RELATIONS, num_relative, signal_names
from recsys.training.folds import build_extractor

DAY = 86_400
NUM_ITEMS, RANK = 9, 6


def text() -> torch.Tensor:
    """Reduced: float32 [N + 1, r]."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(NUM_ITEMS, RANK, generator=generator), dim=1)
    return torch.nn.functional.pad(rows, (0, 0, 1, 0))


@pytest.fixture
def histories() -> Histories:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(1, 7), 5)
    items = np.concatenate([rng.permutation(NUM_ITEMS)[:5] + 1 for _ in range(6)])
    context = rng.random((7, 2)).astype(np.float32)
    return Histories.from_indices(users, items, rng.integers(0, 60 * DAY, 30), 6, context)


@pytest.fixture
def extractor(histories: Histories) -> SignalExtractor:
    return build_extractor(histories, text(), 3)


def signals(
    extractor: SignalExtractor, history: HistoryBatch, candidates: list[list[int]], scores=None
) -> torch.Tensor:
    items = np.array(candidates)
    if scores is None:
        scores = torch.zeros(*items.shape, 1)
    return extractor.signals(extractor.inputs(history, items, scores))


def column(name: str, num_towers: int = 1) -> int:
    return signal_names(num_towers).index(name)


def test_there_is_one_name_per_signal(histories, extractor) -> None:
    found = signals(extractor, histories.pad(np.array([1])), [[7, 8, 9]], torch.rand(1, 3, 2))
    assert found.shape == (1, 3, len(signal_names(2)))
    assert signal_names(2)[0] == "score"
    assert signal_names(2)[num_relative(2)] == "log_rank"
    relative = found[0, :, : num_relative(2)]
    torch.testing.assert_close(
        relative.mean(dim=0), torch.zeros(num_relative(2)), atol=1e-5, rtol=0
    )


def test_a_relation_sums_over_the_history(histories, extractor) -> None:
    history, candidates = histories.pad(np.array([2])), [6, 7, 8, 9]
    found = signals(extractor, history, [candidates])[0]
    relations = extractor.relations
    items = history.item_idx[0]
    for number, name in enumerate(RELATIONS):
        block = slice(number * RANK, (number + 1) * RANK)
        vectors = relations.vectors[:, block]
        expected = (vectors[candidates] * relations.signs[block]) @ vectors[items].T
        order = expected.sum(dim=1).argsort()
        assert found[:, column(f"{name}_sum")].argsort().tolist() == order.tolist()


def test_feedback_is_the_mean_likeness_to_the_lists_best_others(histories, extractor) -> None:
    best, more = list(range(1, 10)) * 2 + [1, 2], [3, 4]
    found = signals(extractor, histories.pad(np.array([1])), [[*best, *more]])[0]
    vectors = extractor.relations.vectors[:, -RANK:]
    likeness = vectors[[*best, *more]] @ vectors[best].T  # [22, 20]
    own = torch.eye(22, 20)
    expected = (likeness * (1 - own)).sum(dim=1) / (20 - own.sum(dim=1))
    expected = (expected - expected.mean()) / expected.std(correction=0)
    torch.testing.assert_close(found[:, column("text_feedback")], expected, atol=1e-4, rtol=0)


def test_a_single_candidate_has_no_likeness_to_others(histories, extractor) -> None:
    found = signals(extractor, histories.pad(np.array([1])), [[7, 0]])
    assert torch.isfinite(found).all()
    assert not found[0, 0, column("text_feedback")]


def test_ranks_and_popularity_are_logarithms(histories, extractor) -> None:
    history = histories.pad(np.array([1]))
    found = signals(extractor, history, [[7, 2, 5]])[0]
    assert found[:, column("log_rank")].tolist() == pytest.approx(np.log([1, 2, 3]).tolist())
    counts = histories.item_counts(NUM_ITEMS)
    popularity = np.log1p(counts[[7, 2, 5]])
    assert found[:, column("log_popularity")].tolist() == pytest.approx(popularity.tolist())
    usual = np.log1p(counts[history.item_idx[0].numpy()]).mean()
    relative = found[:, column("relative_popularity")]
    assert relative.tolist() == pytest.approx((popularity - usual).tolist(), abs=1e-5)
    assert found[0, column("log_history_length")] == pytest.approx(np.log(5))


def test_a_row_does_not_depend_on_its_batch_or_on_empty_slots(histories, extractor) -> None:
    scores = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(1))
    scores[0, 3] = 99.0  # whatever stands in an empty slot
    both = histories.pad(np.array([1, 2]))
    together = signals(extractor, both, [[7, 8, 9, 0], [1, 2, 3, 4]], scores)
    alone = signals(extractor, histories.pad(np.array([1])), [[7, 8, 9]], scores[:1, :3])
    torch.testing.assert_close(together[:1, :3], alone)
    assert not together[0, 3].any()


def test_padding_of_the_history_changes_nothing(histories, extractor) -> None:
    history = histories.pad(np.array([1]))
    wider = HistoryBatch(
        *(torch.nn.functional.pad(part, (0, 4)) for part in history[:3]), history.context
    )
    candidates = [[7, 8, 9]]
    for one, other in zip(
        extractor.inputs(history, np.array(candidates), torch.zeros(1, 3, 1)),
        extractor.inputs(wider, np.array(candidates), torch.zeros(1, 3, 1)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_an_empty_history_has_finite_signals(extractor) -> None:
    none = torch.zeros(1, 1, dtype=torch.long)
    history = HistoryBatch(none, none, none > 0, torch.zeros(1, 2))
    assert torch.isfinite(signals(extractor, history, [[1, 2]])).all()


def test_the_latest_events_follow_the_null_token(histories, extractor) -> None:
    history = histories.pad(np.array([1, 2]))
    inputs = extractor.inputs(history, np.array([[7, 8], [1, 2]]), torch.zeros(2, 2, 1))
    assert inputs.recent[:, 0].tolist() == [0, 0]
    assert inputs.recent[:, 1:].tolist() == history.item_idx[:, -3:].tolist()
    assert inputs.age[:, [0, -1]].tolist() == [[0, 0], [0, 0]]
    last = history.timestamps[:, -1:]
    assert inputs.age[:, 1:].tolist() == (last - history.timestamps[:, -3:]).tolist()
    assert not inputs.strength.any()
    weights = torch.rand(history.mask.shape) + 0.5
    weighed = history._replace(weights=weights)
    inputs = extractor.inputs(weighed, np.array([[7, 8], [1, 2]]), torch.zeros(2, 2, 1))
    assert inputs.strength[:, 0].tolist() == [0, 0]
    torch.testing.assert_close(inputs.strength[:, 1:], weights[:, -3:].log())


def test_of_events_that_there_are_not_strength_is_zero(histories, extractor) -> None:
    history = histories.pad(np.array([1]))
    mask = history.mask.clone()
    mask[:, 2:] = False
    short = history._replace(mask=mask, weights=3.0 * mask)
    inputs = extractor.inputs(short, np.array([[7, 8]]), torch.zeros(1, 2, 1))
    torch.testing.assert_close(
        inputs.strength, torch.tensor([[0.0, 1.0, 1.0, 0.0]]) * torch.tensor(3.0).log()
    )


def test_what_was_seen_at_the_same_time_goes_together() -> None:
    users = np.array([1, 1, 2, 2, 3])
    items = np.array([1, 2, 1, 3, 1])
    times = np.array([0, 5, 0, 50_000, 0])  # 2 in the same sitting as 1, 3 much later
    histories = Histories.from_indices(users, items, times, 3)
    extractor = build_extractor(histories, text(), 3)
    found = signals(extractor, histories.pad(np.array([3])), [[2, 3, 4]])[0]
    session, plain = (found[:, column(f"{name}_sum")] for name in RELATIONS[:2])
    assert session[0] > session[1] + 1.0
    assert plain[0] == pytest.approx(float(plain[1]), abs=0.05)
    assert plain[0] > plain[2]


def test_nothing_after_the_last_event_of_the_history_counts() -> None:
    """Popularity at the end of a history does not see the events from then on."""
    now = 40 * DAY
    users, items = np.array([1, 2, 2, 3, 3, 3]), np.array([1, 2, 3, 2, 3, 3])
    before = np.array([now, now - 1, now - 5 * DAY])
    windows = [n for n, name in enumerate(signal_names(1)) if name.endswith("d")]
    assert len(windows) == 6

    def found(later: list[int]) -> torch.Tensor:
        histories = Histories.from_indices(users, items, np.array([*before, *later]), 3)
        extractor = build_extractor(histories, text(), 3)
        return signals(extractor, histories.pad(np.array([1])), [[2, 3]])[..., windows]

    expected = found([now, now + DAY // 2, now + 3 * DAY])
    assert torch.equal(expected, found([now + 50 * DAY, now + 70 * DAY, now + 90 * DAY]))
    assert not torch.equal(expected, found([now - DAY // 2, now - DAY // 2, now]))


def test_affinity_prefers_what_users_of_the_same_attribute_have() -> None:
    """Users 1 to 4 have attribute 0 and item 1, users 5 to 8 attribute 1 and item 2; all have 3."""
    users = np.concatenate([np.arange(1, 9), np.arange(1, 9)])
    items = np.array([1] * 4 + [2] * 4 + [3] * 8)
    context = np.repeat(np.eye(2, dtype=np.float32), 4, axis=0)
    context = np.concatenate([np.zeros((1, 2), np.float32), context])
    histories = Histories.from_indices(users, items, np.arange(16), 8, context)
    extractor = build_extractor(histories, text(), 3)
    found = signals(extractor, histories.pad(np.array([1, 5])), [[1, 2, 3]] * 2)
    affinity = found[:, :, column("context_affinity")]
    assert affinity[0, 0] > 0.2 > -0.2 > affinity[0, 1]
    assert affinity[1, 1] > 0.2 > -0.2 > affinity[1, 0]
    torch.testing.assert_close(affinity[:, 2], torch.zeros(2), atol=1e-5, rtol=0)


def test_later_items_have_text_alone(histories, extractor) -> None:
    new = torch.nn.functional.normalize(torch.randn(2, RANK), dim=1)
    wider = extractor.with_items(torch.tensor([10, 11]), new)
    found = signals(wider, histories.pad(np.array([1])), [[7, 10, 11]])[0]
    assert torch.isfinite(found).all()
    assert not found[1:, column("log_popularity")].any()
    assert not found[1:, column("popularity_30d")].any()
    assert found[1, column("session_sum")] == found[2, column("session_sum")]
    assert found[1, column("text_sum")] != found[2, column("text_sum")]
    # The first one stays as it is.
    assert len(extractor.rows.relations) == NUM_ITEMS + 1
    known = signals(extractor, histories.pad(np.array([1])), [[7, 8, 9]])
    assert torch.equal(signals(wider, histories.pad(np.array([1])), [[7, 8, 9]]), known)
