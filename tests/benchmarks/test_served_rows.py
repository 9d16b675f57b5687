"""What the check of served rows takes for right, and for wrong."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import served_rows
from benchmarks.served_rows import common, interactions, is_right

RIGHT = {
    **{"rows": 9, "served": 9, "exported": 9, "batch": 0, "http": 0},
    **{"users": 4, "batch_lists": 4, "http_lists": 4},
}


def pairs(*rows: tuple[object, object]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id"])


def test_pairs_are_the_same_whatever_types_their_ids_have() -> None:
    lists = pairs((1, 7), (2, 7), (2, 8))
    assert common(lists, pairs(("1", "7"), ("2", "9"))) == 1
    assert common(lists, pairs(("3", "7"))) == 0


@pytest.mark.parametrize(
    "wrong", [{"served": 8}, {"exported": 0}, {"batch": 1}, {"http": 1}, {"http_lists": 0}], ids=str
)
def test_one_wrong_figure_is_enough(wrong: dict[str, int]) -> None:
    assert is_right(RIGHT)
    assert not is_right(RIGHT | wrong)


def test_exports_are_compared_whatever_the_order_of_rows(tmp_path: Path) -> None:
    rows = pairs((2, 1), (1, 5), (1, 3)).assign(timestamp=[3, 2, 1])
    for name, order in (("once", [0, 1, 2]), ("twice", [2, 0, 1])):
        (tmp_path / name).mkdir()
        rows.iloc[order].to_parquet(tmp_path / name / "interactions.parquet")
    once, twice = (interactions(tmp_path / name) for name in ("once", "twice"))
    assert once.equals(twice)
    assert once["item_id"].tolist() == [3, 5, 1]


@pytest.mark.parametrize(
    ("figures", "is_error"), [(RIGHT, False), (RIGHT | {"batch": 2}, True)], ids=["right", "wrong"]
)
def test_a_wrong_set_ends_in_an_error(
    figures: dict[str, int], is_error: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("events.csv.gz", "items.csv.gz"):
        (tmp_path / "steam").mkdir(exist_ok=True)
        (tmp_path / "steam" / name).touch()
    monkeypatch.setattr(served_rows, "check", lambda *_: figures)
    command = ["served_rows.py", "--sets", str(tmp_path), "--only", "steam,office"]
    monkeypatch.setattr(sys, "argv", command)
    if is_error:
        with pytest.raises(SystemExit, match="steam"):
            served_rows.main()
    else:
        served_rows.main()
