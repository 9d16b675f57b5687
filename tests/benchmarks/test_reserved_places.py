"""What reserved places bring and cost, by a recommender whose lists are known."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.cold_item_draw import ColdItems, hold_out_items
from benchmarks.reserved_places import (
    AS_RANKED,
    DIFFERENCE,
    RESERVED,
    evaluate_places,
    warm_targets,
)
from recsys.evaluation import Targets


class FirstItems:
    """Warm items by their index, then cold ones; of these the last is the best."""

    def __init__(self, draw: ColdItems) -> None:
        self.items = draw.data.items
        self.retriever = SimpleNamespace(embeddings=torch.arange(61.0)[:, None])
        cold = np.flatnonzero(draw.cold)
        warm = np.flatnonzero(~draw.cold)[1:]
        self.order = self.items.decode(np.concatenate([warm, cold]))

    def retrieve(self, requests: Any, *, rerank: bool) -> Any:
        queries = np.ones((len(requests), 1), np.float32)
        return SimpleNamespace(requests=requests, encoded=SimpleNamespace(queries=queries))

    def as_retrieved(self, found: Any) -> Any:
        return [SimpleNamespace(item_ids=self.order[: one.top_k]) for one in found.requests]


@pytest.fixture
def draw(data) -> ColdItems:
    """Of 60 items the last 40 may be cold: four are."""
    return hold_out_items(data, np.arange(21, 61), seed=0)


def targets(items: list[int]) -> Targets:
    number = len(items)
    return Targets(
        user_idx=np.array([1]),
        rows=torch.zeros(number, dtype=torch.int64),
        items=torch.tensor(items),
        num_relevant=torch.tensor([number]),
    )


def test_figures_equal_hand_computed_ones(draw, monkeypatch):
    monkeypatch.setattr("benchmarks.reserved_places.LENGTH", 40)
    first, *_, last = np.flatnonzero(draw.cold).tolist()
    asked, warm = replace(draw, targets=targets([first, last])), targets([1, 11, 18, 20])
    found = evaluate_places(FirstItems(draw), asked, warm, rerank=False)  # type: ignore[arg-type]
    assert found[AS_RANKED]["cold"]["recall@20"] == 0
    assert found[RESERVED]["cold"]["recall@20"] == 0.5  # the first one is the fourth best
    assert found[AS_RANKED]["warm"]["recall@20"] == 1
    assert found[RESERVED]["warm"]["recall@20"] == 0.5  # 18 and 20 moved beyond
    assert found[DIFFERENCE]["warm"]["recall@20"] == -0.5
    assert found[DIFFERENCE]["warm"]["ndcg@10"] == 0
    # 11 is at place 12, 18 at 21, 20 at 23.
    gains = {name: 1 / np.log2(np.array(ranks) + 1) for name, ranks in RANKS.items()}
    ideal = (1 / np.log2(np.arange(1, 5) + 1)).sum()
    for name in (AS_RANKED, RESERVED):
        assert found[name]["warm"]["ndcg@100"] == pytest.approx(gains[name].sum() / ideal)


RANKS = {AS_RANKED: [1, 11, 18, 20], RESERVED: [1, 12, 21, 23]}


def test_warm_targets_are_test_rows_without_cold_items(data, draw):
    warm = warm_targets(data, draw)
    is_cold = draw.cold[data.items.encode(data.split.test["item_id"])]
    assert len(warm.items) == (~is_cold).sum()
    assert not draw.cold[warm.items.numpy()].any()
