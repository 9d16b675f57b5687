"""A model as a Python program has it: lists as frames, metrics as a table, a bundle that moves."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import recsys
from recsys.bundle import write_metrics
from recsys.errors import InputError
from recsys.model import Model
from recsys.request import Request

MODEL_METRICS = {
    f"{name}@{k}": value
    for k, value in ((5, 0.25), (10, 0.5), (100, 0.75))
    for name in ("recall", "ndcg")
}


@pytest.fixture(scope="module")
def model(untrained_bundle: Path) -> Model:
    """Users 101 … 190, items 1001 … 1030."""
    return recsys.load(untrained_bundle)


def test_lists_are_those_of_the_recommender_with_ids_and_titles(model: Model) -> None:
    found = model.recommend([101, 150], top_k=4)
    assert found.dtypes.astype(str).to_dict() == {
        "user_id": "int64",
        "item_id": "int64",
        "title": "str",
        "score": "float32",
        "rank": "int64",
        "source": "str",
    }
    answers = model.recommender.recommend([Request(4, 101), Request(4, 150)])
    assert found["user_id"].tolist() == [101] * 4 + [150] * 4
    assert found["item_id"].tolist() == [*answers[0].item_ids, *answers[1].item_ids]
    assert found["rank"].tolist() == [1, 2, 3, 4] * 2
    assert found["title"].tolist() == [f"Film {item}" for item in found["item_id"]]
    assert np.array_equal(found["score"], np.concatenate([one.scores for one in answers]))


@pytest.mark.parametrize(
    "users", [101, np.int64(101), [101], (101,), np.array([101]), pd.Series([101], index=[7])]
)
def test_users_come_in_any_container(model: Model, users: object) -> None:
    pd.testing.assert_frame_equal(model.recommend(users, 3), model.recommend([101], 3))


def test_unknown_users_get_the_popular_list(model: Model) -> None:
    (popular,) = model.recommender.popular([Request(5)])
    found = model.recommend([999], top_k=5)
    assert found["item_id"].tolist() == popular.item_ids
    assert found["user_id"].tolist() == [999] * 5


def test_a_history_of_nobody_in_particular(model: Model) -> None:
    found = model.recommend(history=[1001, 1005], top_k=30, exclude=[1007])
    assert found["user_id"].isna().all()
    assert found["item_id"].dtype == "int64"
    assert set(found["item_id"]) == set(range(1001, 1031)) - {1001, 1005, 1007}


def test_a_text_without_the_text_model_of_training_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="a text encoder of this package"):
        model.recommend(text="war")


def test_a_text(text_bundle: Path) -> None:
    model = recsys.load(text_bundle)
    by_text = model.recommend(text="Film 1009", top_k=3)
    assert len(by_text) == 3
    assert not by_text["item_id"].equals(model.recommend(text="quite another", top_k=3)["item_id"])
    assert model.recommend([101, 102], text="Film 1009", top_k=3)["user_id"].nunique() == 2


def test_stage_1_alone_and_no_users(model: Model) -> None:
    (retrieved,) = model.recommender.recommend([Request(9, 101)], rerank=False)
    assert model.recommend(101, 9, rerank=False)["item_id"].tolist() == retrieved.item_ids
    nobody = model.recommend([])
    assert nobody.empty
    assert nobody.dtypes.equals(model.recommend([101]).dtypes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "users, a history or a text; found none"),
        ({"users": [101], "history": [1001]}, "users or a history; found both"),
        ({"users": ["101"]}, r"integers as ids in users, .*found str '101'; convert them by int"),
        ({"users": [101.0]}, "found float 101.0"),
        ({"users": [True]}, "found bool True"),
        ({"history": ["1001"]}, "integers as ids in history"),
        ({"users": [101], "top_k": 0}, "top_k of at least 1; found 0"),
    ],
)
def test_mistakes_are_told(model: Model, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.recommend(**arguments)


def test_ids_of_strings(string_id_bundle: Path) -> None:
    model = recsys.load(string_id_bundle)
    found = model.recommend(pd.Series(["u1", "u2"]), top_k=2)
    assert found.dtypes.astype(str)[["user_id", "item_id"]].tolist() == ["str", "str"]
    assert model.recommend("u1", 2)["user_id"].tolist() == ["u1", "u1"]
    assert model.recommend(history=["i1"], top_k=1)["user_id"].isna().all()
    with pytest.raises(InputError, match="text as ids in users"):
        model.recommend([1])


def test_a_saved_bundle_is_the_same_model_anywhere(model: Model, tmp_path: Path) -> None:
    saved = model.save(tmp_path / "deep" / "mine")
    assert saved == (tmp_path / "deep" / "mine").resolve()
    moved = shutil.move(saved, tmp_path / "moved")
    other = recsys.load(moved)
    pd.testing.assert_frame_equal(other.recommend([101, 102]), model.recommend([101, 102]))
    # Again over a bundle, but over nothing else.
    assert model.save(moved) == Path(moved).resolve()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "note.txt").write_text("mine")
    for taken in ("notes", "notes/note.txt"):
        with pytest.raises(InputError, match="a bundle or nothing at"):
            model.save(tmp_path / taken)
    assert (tmp_path / "notes" / "note.txt").read_text() == "mine"
    with pytest.raises(InputError, match="a bundle name that is not taken"):
        model.save(tmp_path / "latest")
    assert not list(tmp_path.rglob("*partial*"))


def test_metrics_print_as_a_table(model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics in .*; found none"):
        model.evaluate()
    copy = recsys.load(model.save(tmp_path / "evaluated"))
    written = {
        "dataset": "films",
        "split": "random",
        "n_users": 12,
        "stage1": MODEL_METRICS,
        "baselines": {"popularity": MODEL_METRICS},
    }
    write_metrics(copy.path, written)
    found = copy.evaluate()
    assert found == written
    lines = repr(found).splitlines()
    assert "films, split random, 12 users" in lines[0]
    assert lines[-1].split()[-6:] == ["0.2500", "0.2500", "0.5000", "0.5000", "0.7500", "0.7500"]
    assert "| stage 1 (two-tower) |" in found._repr_markdown_()
