"""Scores by tower: what they add up to, and what is left where there is no item."""

import numpy as np
import pytest
import torch

from recsys.artifact import build_two_tower
from recsys.features import ContentFeatures
from recsys.index.builders import FlatIndexBuilder
from recsys.retriever import Retriever
from recsys.schema import HistoryBatch
from tests.conftest import TOWER

NUM_ITEMS = 12


@pytest.fixture(scope="module")
def retriever() -> Retriever:
    """Two towers, of widths 8 + 1 and 4."""
    torch.manual_seed(0)
    features = torch.nn.functional.pad(torch.randn(NUM_ITEMS, 5), (0, 0, 1, 0))
    content = ContentFeatures(features, torch.zeros(5), torch.ones(5))
    towers = [TOWER, {**TOWER, "dim": 4, "use_bias": False}]
    model = build_two_tower(towers, content, 2).eval()
    index = FlatIndexBuilder().build(model.all_candidates().detach().numpy())
    return Retriever(model, index, 100, 16)


def history_of(*items: list[int]) -> HistoryBatch:
    width = max(map(len, items))
    padded = torch.tensor([[*one, *[0] * (width - len(one))] for one in items])
    return HistoryBatch(padded, 10 * padded, padded > 0, torch.rand(len(items), 2))


def test_what_the_widest_tower_adds_is_what_the_others_leave(retriever: Retriever) -> None:
    found = retriever.retrieve(history_of([1, 2, 3], [4]), 6)
    query = retriever.encode(history_of([1, 2, 3], [4])._replace(context=torch.zeros(2, 2)))
    total = torch.einsum("bd,bkd->bk", query, retriever.embeddings[found.item_idx])
    apart = retriever.tower_scores(query, found.item_idx)
    torch.testing.assert_close(apart.sum(dim=2), total)
    known = retriever.tower_scores(query, found.item_idx, total)
    torch.testing.assert_close(known, apart, atol=1e-5, rtol=1e-5)


def test_empty_slots_have_scores_of_zero(retriever: Retriever) -> None:
    """Their total is minus infinity."""
    found = retriever.retrieve(history_of([1, 2, 3, 4, 5]), NUM_ITEMS)
    assert (found.item_idx[0] == 0).sum() == 5
    assert found.tower_scores.isfinite().all()
    assert not found.tower_scores[0, 7:].any()
    torch.testing.assert_close(found.tower_scores.sum(dim=2)[0, :7], found.scores[0, :7])


def test_a_query_is_that_of_the_model(retriever: Retriever) -> None:
    history = history_of([3, 1, 7], [2], [5, 6])
    expected = retriever.model.query(history.item_idx, history.mask, history.context)
    torch.testing.assert_close(retriever.encode(history), expected)


def test_a_history_of_nothing_has_a_query(retriever: Retriever) -> None:
    nothing = torch.zeros(2, 1, dtype=torch.int64)
    history = HistoryBatch(nothing, nothing, nothing > 0, torch.rand(2, 2))
    expected = retriever.model.query(history.item_idx, history.mask, history.context)
    torch.testing.assert_close(retriever.encode(history), expected)


def test_a_query_does_not_depend_on_its_batch(retriever: Retriever) -> None:
    history = history_of([3, 1, 7], [2], [5, 6])
    alone = history.rows(slice(1, 2))
    assert np.array_equal(retriever.encode(alone)[0].numpy(), retriever.encode(history)[1].numpy())


def test_an_item_beyond_the_table_is_refused(retriever: Retriever) -> None:
    query = retriever.encode(history_of([1, 2, 3]))
    for item in (-1, NUM_ITEMS + 1):
        with pytest.raises(IndexError):
            retriever.tower_scores(query, torch.tensor([[1, item]]))
