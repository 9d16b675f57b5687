import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.data import generator
from recsys.data.catalog import Catalog
from recsys.data.splits import make_split
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.schema import Dataset


@pytest.fixture(scope="module")
def planted() -> Dataset:
    return generator.load(num_users=400, num_items=400, num_interactions=20_000, seed=3)


def matrix(interactions: pd.DataFrame, data: Dataset) -> NDArray[np.float64]:
    """Users x items, 1 where they met; ids of the generator run from 1."""
    assert data.users is not None
    dense = np.zeros((len(data.users), len(data.items)))
    dense[interactions["user_id"] - 1, interactions["item_id"] - 1] = 1
    return dense


def recall_at_10(
    scores: NDArray[np.float64], seen: NDArray[np.float64], test: NDArray[np.float64]
) -> float:
    # A tiny column-wise noise breaks ties without favouring low ids.
    noise = np.random.default_rng(0).random(scores.shape[1]) * 1e-9
    best = np.argsort(-np.where(seen > 0, -np.inf, scores + noise), axis=1)[:, :10]
    hits = np.take_along_axis(test, best, axis=1).sum(axis=1)
    return float((hits / test.sum(axis=1)).mean())


def words_of(text: str) -> set[str]:
    return {word.strip(".,:()|") for word in text.lower().split()}


def overlap(texts: list[str]) -> NDArray[np.float64]:
    """Cosine of weighted bags of words [N, N], rare words weighing more."""
    bags = [words_of(text) for text in texts]
    index = {word: n for n, word in enumerate(sorted(set().union(*bags)))}
    counts = np.zeros((len(texts), len(index)))
    for row, bag in enumerate(bags):
        counts[row, [index[word] for word in bag]] = 1
    weighted = counts * np.log(len(texts) / counts.sum(axis=0))
    weighted /= np.linalg.norm(weighted, axis=1, keepdims=True)
    similarity = weighted @ weighted.T
    np.fill_diagonal(similarity, 0)
    return similarity


@settings(max_examples=40, deadline=None)
@given(
    num_users=st.integers(1, 40),
    num_items=st.integers(1, 80),
    fill=st.floats(0, 1),
    num_groups=st.integers(1, 10),
    seed=st.integers(0, 99),
)
def test_any_possible_size_comes_out_exactly(
    num_users: int, num_items: int, fill: float, num_groups: int, seed: int
) -> None:
    warm = num_items - int(num_items * generator.COLD_SHARE)
    total = num_users + int(fill * (num_users * warm - num_users))
    data = generator.load(num_users, num_items, total, seed, num_groups)
    pairs = data.interactions[["user_id", "item_id"]]
    assert len(pairs) == total
    assert not pairs.duplicated().any()
    assert pairs["user_id"].nunique() == num_users
    assert pairs["user_id"].value_counts().min() >= min(10, total // num_users, warm)
    assert pairs["item_id"].isin(data.items["item_id"]).all()
    assert pairs["item_id"].nunique() <= warm
    assert data.items["item_id"].tolist() == list(range(1, num_items + 1))
    assert data.items["title"].is_unique


@pytest.mark.parametrize("sizes", [(0, 5, 5), (5, 0, 5), (5, 5, 4), (5, 5, 26), (10, 100, 981)])
def test_impossible_sizes_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match=r"data\.num_users"):
        generator.load(*sizes)


def test_an_unknown_number_of_groups_is_refused() -> None:
    with pytest.raises(InputError, match=r"num_groups in 1\.\.10"):
        generator.load(10, 50, 100, num_groups=11)


def test_the_seed_decides_everything(planted: Dataset) -> None:
    again = generator.load(400, 400, 20_000, seed=3)
    pd.testing.assert_frame_equal(planted.interactions, again.interactions)
    pd.testing.assert_frame_equal(planted.items, again.items)
    other = generator.load(400, 400, 20_000, seed=4)
    assert not planted.interactions.equals(other.interactions)


def test_columns_are_those_of_a_dataset(planted: Dataset) -> None:
    assert planted.interactions.dtypes.astype(str).to_dict() == {
        "user_id": "int64",
        "item_id": "int64",
        "timestamp": "int64",
        "rating": "float64",
    }
    assert set(planted.interactions["rating"]) == {1, 2, 3, 4, 5}
    assert planted.interactions["timestamp"].is_monotonic_increasing
    assert planted.items["year"].between(1960, 2024).all()
    for column in ("title", "description", "genres"):
        assert (planted.items[column] != "").all()


def test_one_item_in_fifty_is_cold_and_popularity_is_skewed(planted: Dataset) -> None:
    counts = planted.interactions["item_id"].value_counts()
    assert len(planted.items) - len(counts) >= 8
    assert counts.head(40).sum() > 0.2 * counts.sum()


def test_neighbours_beat_popularity(planted: Dataset) -> None:
    split = make_split(planted.interactions, "random", num_test=10)
    seen, test = matrix(split.train, planted), matrix(split.test, planted)
    popularity = np.broadcast_to(seen.sum(axis=0), seen.shape)
    # EASE (Steck 2019), lambda 100.
    inverse = np.linalg.inv(seen.T @ seen + 100 * np.eye(seen.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    bar = recall_at_10(popularity, seen, test)
    assert recall_at_10(seen @ weights, seen, test) > 1.6 * bar


def test_text_alone_beats_chance_and_shuffled_text_does_not(planted: Dataset) -> None:
    vocabulary = Vocabulary(planted.items["item_id"].tolist())
    similarity = overlap(Catalog.from_frame(planted.items, vocabulary).texts())
    split = make_split(planted.interactions, "random", num_test=10)
    seen, test = matrix(split.train, planted), matrix(split.test, planted)
    chance = recall_at_10(np.random.default_rng(1).random(seen.shape), seen, test)
    shuffle = np.random.default_rng(2).permutation(len(similarity))
    shuffled = similarity[shuffle][:, shuffle]
    assert recall_at_10(seen @ similarity, seen, test) > 2 * chance
    assert recall_at_10(seen @ shuffled, seen, test) < 1.5 * chance


def test_what_is_rated_in_one_sitting_tells_more_than_what_one_user_rates(
    planted: Dataset,
) -> None:
    """Item neighbours counted within sittings beat the same counted within histories."""
    split = make_split(planted.interactions, "random", num_test=10)
    seen, test = matrix(split.train, planted), matrix(split.test, planted)
    events = split.train.sort_values(["user_id", "timestamp"], kind="stable")
    users, items, times = (events[c].to_numpy() for c in ("user_id", "item_id", "timestamp"))
    together = np.zeros((seen.shape[1], seen.shape[1]))
    for lag in range(1, 15):
        near = (users[lag:] == users[:-lag]) & (times[lag:] - times[:-lag] < 600)
        np.add.at(together, (items[lag:][near] - 1, items[:-lag][near] - 1), 1)
    whole = seen.T @ seen
    np.fill_diagonal(whole, 0)
    norm = np.sqrt(np.outer(seen.sum(axis=0) + 5, seen.sum(axis=0) + 5))
    in_sittings = recall_at_10(seen @ ((together + together.T) / norm), seen, test)
    assert in_sittings > 1.1 * recall_at_10(seen @ (whole / norm), seen, test)


def test_a_hundred_thousand_interactions_take_no_time() -> None:
    start = time.process_time()
    data = generator.load(2_000, 5_000, 100_000)
    assert len(data.interactions) == 100_000
    # 0.15 s on one core; the bound only tells vectorised code from a loop over rows.
    assert time.process_time() - start < 5
