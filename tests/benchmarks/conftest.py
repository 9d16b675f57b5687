"""A small prepared data set with histories long enough for both protocols."""

import numpy as np
import pandas as pd
import pytest

from recsys.data.prepare import TrainingData, prepare
from recsys.data.splits import make_split
from recsys.request import Request
from recsys.schema import Dataset, RankedList

NUM_USERS, NUM_ITEMS, PER_USER = 40, 60, 30


@pytest.fixture(scope="package")
def data() -> TrainingData:
    """40 users with 30 of 60 items each; items 101, 102, …, users u1, u2, …"""
    rng = np.random.default_rng(0)
    items = np.concatenate([rng.permutation(NUM_ITEMS)[:PER_USER] for _ in range(NUM_USERS)]) + 101
    interactions = pd.DataFrame(
        {
            "user_id": np.repeat([f"u{n}" for n in range(1, NUM_USERS + 1)], PER_USER),
            "item_id": items,
            "timestamp": rng.integers(0, 10_000, NUM_USERS * PER_USER),
        }
    )
    catalog = pd.DataFrame(
        {
            "item_id": np.arange(101, 101 + NUM_ITEMS),
            "title": [f"Film {n}" for n in range(NUM_ITEMS)],
            "genres": np.where(np.arange(NUM_ITEMS) % 2 == 0, "Drama", "Comedy|War"),
            "year": pd.array([None, *range(1951, 1950 + NUM_ITEMS)], "Int64"),
        }
    )
    dataset = Dataset("tiny", interactions, catalog)
    return prepare(dataset, make_split(interactions, "ua", num_test=5))


class FirstItems:
    """Stands in for a ``Recommender``: the smallest ids that a request allows, in order."""

    def __init__(self, item_ids: list[int]) -> None:
        self.item_ids = item_ids
        self.requests: list[Request] = []

    def recommend(self, requests, *, rerank=True):
        self.requests += requests
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> RankedList:
        left = set(request.exclude) | set(request.history or ())
        found = [item for item in self.item_ids if item not in left][: request.top_k]
        scores = -np.arange(len(found), dtype=np.float32)
        return RankedList(request.user_id, found, scores, "retrieved")
