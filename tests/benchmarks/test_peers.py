import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.peers.compare import METRICS, compare, fill, run, table, training_rows
from benchmarks.peers.exchange import K, Lists, Rows, load, save
from recsys.data.histories import Histories
from recsys.errors import InputError


@pytest.fixture
def train() -> Histories:
    rng = np.random.default_rng(0)
    user_idx = np.repeat(np.arange(1, 31), 12)
    item_idx = np.concatenate([rng.permutation(40)[:12] + 1 for _ in range(30)])
    return Histories.from_indices(user_idx, item_idx, rng.integers(0, 1000, 360), num_users=30)


def pairs(frame: pd.DataFrame) -> set[tuple[int, int]]:
    return set(zip(frame["user_id"], frame["item_id"], strict=True))


def test_peers_choose_epochs_on_a_part_of_the_training_rows(train: Histories) -> None:
    rows = training_rows(train, seed=0)

    assert pairs(rows.train) == set(zip(train.user_idx, train.item_idx, strict=True))
    assert pairs(rows.fit) | pairs(rows.validation) == pairs(rows.train)
    assert not pairs(rows.fit) & pairs(rows.validation)
    # Ten per user, but at most half.
    assert (rows.validation.groupby("user_id").size() == 6).all()


def test_rows_and_lists_survive_the_files_between_the_environments(
    train: Histories, tmp_path: Path
) -> None:
    rows = training_rows(train, seed=0)
    lists = Lists(np.array([3, 1]), np.arange(2 * K).reshape(2, K))

    rows.write(tmp_path)
    save(tmp_path, lists, {"epochs": 7})
    read, (loaded, facts) = Rows.read(tmp_path), load(tmp_path)

    for name in ("train", "fit", "validation"):
        pd.testing.assert_frame_equal(getattr(read, name), getattr(rows, name))
    assert loaded.user_id.tolist() == [3, 1]
    assert (loaded.item_id == lists.item_id).all()
    assert facts == {"epochs": 7}


def test_lists_are_brought_into_the_order_asked_for_and_unknown_users_get_popular_items() -> None:
    lists = Lists(np.array([5, 2]), np.array([[51, 52], [21, 22]]))
    popular = np.array([[1, 2], [3, 4], [5, 6]])

    filled = fill(lists, popular, np.array([2, 4, 5]))

    assert filled.tolist() == [[21, 22], [3, 4], [51, 52]]


def test_a_python_without_the_peers_is_told_what_to_install(train: Histories) -> None:
    with pytest.raises(InputError, match=r"No module named 'recbole'.*requirements.txt"):
        run(Path(sys.executable), "RecBole MultiVAE", training_rows(train, seed=0), seed=0)


def test_a_missing_python_is_told_before_any_work() -> None:
    arguments = argparse.Namespace(python=Path("nowhere/python"))
    with pytest.raises(InputError, match=r"nowhere/python.*--python"):
        compare(arguments)


def test_the_table_has_costs_for_peers_alone() -> None:
    metrics = dict.fromkeys(METRICS, 0.25)
    summary = dict.fromkeys(("ease", "RecTools SASRec"), metrics)
    peer = {"epochs": 20, "seconds": 61.2, "peak_gb": 1.24, "versions": {"rectools": "0.19.0"}}
    content = {
        "dataset": "ml100k",
        "mean": summary,
        "sd": summary,
        "draws": [summary],
        "facts": [{"RecTools SASRec": peer}],
    }

    result = table(content)

    rows = list(zip(*(column.cells for column in result.columns), strict=True))
    assert [row[0] for row in rows] == ["EASE", "RecTools SASRec"]
    assert rows[0][-3:] == ("", "", "")
    assert rows[1][-3:] == ("20", "61", "1.2")
    assert "rectools 0.19.0" in str(result.caption)
