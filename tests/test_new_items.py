from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.new_items import NewItems
from recsys.ranking import top_k


@pytest.fixture(scope="module")
def retriever() -> SimpleNamespace:
    return SimpleNamespace(embeddings=torch.tensor([[0.0], [3.0], [1.0], [2.0], [2.0], [5.0]]))


def test_the_best_come_first_without_what_is_excluded(retriever) -> None:
    new = NewItems(retriever, np.array([1, 2, 5]))
    query = np.ones(1, np.float32)
    assert new.best(query, 9) == [5, 1, 2]
    assert new.best(query, 2) == [5, 1]
    assert new.best(-query, 2) == [2, 1]
    assert new.best(query, 9, np.array([5, 4])) == [1, 2]
    assert new.best(query, 9, np.array([1, 2, 5])) == []
    assert NewItems(retriever, np.zeros(0, np.int64)).best(query, 3) == []


@given(st.lists(st.floats(-9, 9, width=16), min_size=1, max_size=30), st.integers(1, 35))
def test_the_order_is_that_of_all_lists(values: list[float], k: int) -> None:
    retriever = SimpleNamespace(embeddings=torch.tensor([0.0, *values])[:, None])
    items = np.arange(1, len(values) + 1)
    found = NewItems(retriever, items).best(np.ones(1, np.float32), k)
    scores = torch.tensor(values)
    best, expected = top_k(scores[None], torch.from_numpy(items), k)
    assert [values[item - 1] for item in found] == best[0].tolist()
    distinct = len(set(values)) == len(values) or k >= len(values)
    assert not distinct or found == expected[0].tolist()
