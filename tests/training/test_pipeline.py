"""What validation chose for stage 1 is what all later fits of the same run are given."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recsys.bundle import read_manifest
from recsys.data.prepare import TrainingData, prepare, prepare_all
from recsys.data.splits import make_split
from recsys.errors import InputError
from recsys.index.builders import FlatIndexBuilder
from recsys.models.history_weights import EventCounting
from recsys.schema import Dataset
from recsys.training import pipeline, refit
from recsys.training.item_regression import ItemRegression
from recsys.training.pipeline import Destination, stage2_lists, train_stage1
from recsys.training.retrieval_recipe import RetrievalRecipe
from recsys.training.run import chosen
from recsys.training.stage1 import Found
from recsys.training.stage2 import RerankingRecipe

from .conftest import TOWER, recipe, run

LINEAR = TOWER | {"use_content": False, "use_bias": False, "hidden_dim": 0, "length_exponent": 0.0}
CHOSEN = {"content_weight": 3.0, "l2": 20.0, "session_weight": 0.5}
RERANKING = RerankingRecipe({}, 8, 4, 20, 8, 1, 0.01, 0.0, 0.1, 0)
BUILD_INDEX = FlatIndexBuilder().build


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    items = np.concatenate([rng.permutation(20)[:8] for _ in range(30)])
    columns = {"user_id": np.repeat(np.arange(30), 8), "item_id": items, "timestamp": 0}
    catalog = pd.DataFrame({"item_id": np.arange(20), "title": [f"Film {n}" for n in range(20)]})
    return Dataset("tiny", pd.DataFrame(columns), catalog)


@pytest.fixture(scope="module")
def data(dataset: Dataset) -> TrainingData:
    return prepare(dataset, make_split(dataset.interactions, "random", num_test=1))


@pytest.fixture(scope="module")
def wanted() -> RetrievalRecipe:
    objectives = [ItemRegression(), *recipe().objectives]
    return recipe(towers=[LINEAR, TOWER], objectives=objectives, epochs=1, validate_every=1)


@pytest.fixture
def bundle(data, wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of stage 1, whose search has chosen other settings than are configured."""
    search = pipeline.search

    def settled(recipe: RetrievalRecipe, *told: object) -> Found:
        chosen = replace(recipe, objectives=[ItemRegression(**CHOSEN), *recipe.objectives[1:]])
        return search(recipe, *told)._replace(recipe=chosen, counting=EventCounting(None, 0.5))

    monkeypatch.setattr(pipeline, "search", settled)
    text = torch.zeros(len(data.items) + 1, 4)
    destination = Destination(tmp_path, "a", {"text": None, "split": "random"})
    return train_stage1(
        data, text, wanted, BUILD_INDEX, 10, {}, run(tmp_path / "fit"), destination
    )[0]


def test_folds_are_fitted_by_what_was_chosen(bundle, data, wanted, monkeypatch, tmp_path) -> None:
    given = []

    def fold_retriever(*_, **settings):
        given.append((settings["counting"], settings["recipe"].objectives))
        raise InputError("a spy", "one", "look at what it was given")

    monkeypatch.setattr(pipeline, "fold_retriever", fold_retriever)
    with pytest.raises(InputError, match="a spy"):
        stage2_lists(data, bundle, wanted, BUILD_INDEX, RERANKING, 2, run(tmp_path / "folds"))
    counting, objectives = given[0]
    assert counting == (None, 0.5)
    assert objectives[0] == ItemRegression(**CHOSEN)
    assert objectives[1] is wanted.objectives[1]


@pytest.mark.parametrize(
    ("split", "in_order"),
    [("ua", False), ("random", False), ("leave_last", True), ("global_time", True)],
)
def test_folds_follow_the_split(
    bundle, data, wanted, monkeypatch, tmp_path, split: str, in_order: bool
) -> None:
    given = []
    monkeypatch.setattr(
        pipeline, "out_of_fold_lists", lambda *_, **told: given.append(told["in_order"])
    )
    other = replace(data, split=replace(data.split, name=split))
    stage2_lists(other, bundle, wanted, BUILD_INDEX, RERANKING, 2, run(tmp_path / "folds"))
    assert given == [in_order]


def test_the_refit_goes_by_what_was_chosen_and_says_so(
    bundle, dataset, wanted, monkeypatch, tmp_path
) -> None:
    given, fit = [], refit.fit_two_tower
    monkeypatch.setattr(
        refit,
        "fit_two_tower",
        lambda used, *told, **more: given.append(used) or fit(used, *told, **more),
    )
    served = refit.refit(
        bundle,
        prepare_all(dataset),
        wanted,
        BUILD_INDEX,
        run(tmp_path / "all"),
        Destination(tmp_path, "b", {}),
    )
    assert given[0].objectives[0] == ItemRegression(**CHOSEN)
    manifest = read_manifest(served)
    assert manifest["strength_exponent"] == 0.5
    assert manifest["settled"] == {"objectives": [CHOSEN, {}], "weights": None}
    assert chosen(manifest) == (
        "epochs 1, no half-life, strength exponent 0.5, content_weight 3, l2 20, session_weight 0.5"
    )
