"""The linear tower's settings are read off validation events, where these tell for certain."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recsys.artifact import build_two_tower
from recsys.data.histories import Histories
from recsys.data.prepare import hold_out_random
from recsys.features import content_features
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.training.item_regression import ItemRegression
from recsys.training.regression_settings import choose_regression, with_regression
from recsys.training.stage1 import search
from recsys.training.validation_scores import Validation

from .conftest import NUM_ITEMS, TOWER, recipe, run

LINEAR = TOWER | {
    **{"dim": 16, "use_content": False, "use_bias": False, "hidden_dim": 0},
    **{"dropout": 0.0, "id_dropout": 0.0, "length_exponent": 0.0},
}
FITTING = ItemRegression(l2=64.0, session_weight=0.0, content_weight=1.0)
# Texts tell of other groups than users do: so much of them drowns what users say.
DROWNED = replace(FITTING, content_weight=10.0)


@pytest.fixture
def text() -> Tensor:
    """Groups of four items, drawn across those that users have."""
    vectors = torch.zeros(NUM_ITEMS + 1, 12)
    vectors[torch.arange(1, NUM_ITEMS + 1), torch.arange(NUM_ITEMS) * 7919 % NUM_ITEMS // 4] = 1.0
    return vectors


@pytest.fixture
def validation(planted) -> Validation:
    return Validation.of(*hold_out_random(planted, 2, 0), 100, 0)


def chosen(
    objective: ItemRegression, validation: Validation, text, attributes, max_trials: int = 20
) -> tuple[TwoTowerEnsemble, dict | None]:
    counts = torch.from_numpy(validation.remaining.item_counts(NUM_ITEMS))
    content = content_features(text, attributes, counts)
    model = build_two_tower([LINEAR], content, validation.remaining.context.shape[1]).eval()
    objective.fit(model.members[0], validation.remaining, content)
    return model, choose_regression(model, [objective], content, validation, max_trials)


def test_a_weight_that_drowns_the_events_is_lowered(validation, text, attributes) -> None:
    model, settings = chosen(DROWNED, validation, text, attributes)
    assert settings["content_weight"] < DROWNED.content_weight
    # The tower is left as the settings make it.
    again, _ = chosen(replace(DROWNED, **settings), validation, text, attributes, max_trials=0)
    found = validation.scores(model)
    torch.testing.assert_close(found.ndcg, validation.scores(again).ndcg)
    before, _ = chosen(DROWNED, validation, text, attributes, max_trials=0)
    assert validation.is_better(found, validation.scores(before))


def test_what_is_right_stays(validation, text, attributes) -> None:
    model, settings = chosen(FITTING, validation, text, attributes)
    assert settings is None
    before, _ = chosen(FITTING, validation, text, attributes, max_trials=0)
    torch.testing.assert_close(
        validation.scores(model).ndcg, validation.scores(before).ndcg, atol=1e-3, rtol=0
    )


def test_a_penalty_without_a_solution_is_passed_over(validation, text, attributes) -> None:
    """Items that nobody has leave the equations singular where the penalty is next to nothing."""
    few = validation.remaining.select(validation.remaining.item_idx < 10)
    small = Validation.of(few, validation.held_out, 100, 0)
    _, settings = chosen(replace(FITTING, l2=1e-14), small, text, attributes)
    assert settings is None or settings["l2"] >= 1e-14


def test_the_search_of_a_run_finds_them_and_its_recipe_takes_them_over(
    planted: Histories, text, attributes, tmp_path
) -> None:
    towers = {"towers": [LINEAR, TOWER], "objectives": [DROWNED, *recipe().objectives]}
    wanted = recipe(**towers, epochs=5, max_trials=6)
    found = search(wanted, planted, text, attributes, run(tmp_path))
    assert found.regression["content_weight"] < DROWNED.content_weight
    linear, other = wanted.with_regression(found.regression).objectives
    assert linear == replace(DROWNED, **found.regression)
    assert other is wanted.objectives[1]
    assert wanted.with_regression(None).objectives == list(wanted.objectives)
    assert (
        search(replace(wanted, max_trials=0), planted, text, attributes, run(tmp_path / "x"))[2]
        is None
    )


def test_objectives_of_other_kinds_have_no_such_settings(validation, text, attributes) -> None:
    objectives = recipe().objectives
    assert with_regression(objectives, {"l2": 1.0}) == list(objectives)
