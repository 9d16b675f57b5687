import numpy as np

from benchmarks.index import measure, recall


def test_each_index_is_compared_with_exact_search(untrained_bundle) -> None:
    rows = measure(untrained_bundle, ("flat", "auto", "hnsw"))["indexes"]
    assert set(rows) == {"flat", "auto", "hnsw"}
    assert rows["flat"]["recall"] == rows["auto"]["recall"] == 1.0
    assert min(row["ms"] for row in rows.values()) > 0


def test_recall_is_of_the_true_items_of_the_same_row() -> None:
    true = np.array([[1, 2, 3, 4], [5, 6, 0, 0]])
    found = np.array([[4, 1, 9, 5], [6, 5, 0, 0]])
    assert recall(found, true) == 4 / 6
