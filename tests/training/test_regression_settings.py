"""The linear tower's settings are read off validation events, where these tell for certain."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recsys.artifact import build_two_tower
from recsys.data.histories import Histories
from recsys.data.prepare import hold_out_random
from recsys.errors import InputError
from recsys.features import content_features
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.training.item_regression import ItemRegression
from recsys.training.regression_settings import choose_regression
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
) -> tuple[TwoTowerEnsemble, ItemRegression]:
    counts = torch.from_numpy(validation.remaining.item_counts(NUM_ITEMS))
    content = content_features(text, attributes, counts)
    model = build_two_tower([LINEAR], content, validation.remaining.context.shape[1]).eval()
    objective.fit(model.members[0], validation.remaining, content)
    wanted = recipe(towers=[LINEAR], objectives=[objective], max_trials=max_trials)
    (found,) = choose_regression(wanted, model, content, validation).objectives
    return model, found


def test_a_weight_that_drowns_the_events_is_lowered(validation, text, attributes) -> None:
    model, settled = chosen(DROWNED, validation, text, attributes)
    assert settled.content_weight < DROWNED.content_weight
    # The tower is left as the settings make it.
    again, _ = chosen(settled, validation, text, attributes, max_trials=0)
    found = validation.scores(model)
    torch.testing.assert_close(found.ndcg, validation.scores(again).ndcg)
    before, _ = chosen(DROWNED, validation, text, attributes, max_trials=0)
    assert validation.is_better(found, validation.scores(before), tried=1)


def test_what_is_right_stays(validation, text, attributes) -> None:
    model, settled = chosen(FITTING, validation, text, attributes)
    assert settled == FITTING
    before, _ = chosen(FITTING, validation, text, attributes, max_trials=0)
    torch.testing.assert_close(
        validation.scores(model).ndcg, validation.scores(before).ndcg, atol=1e-3, rtol=0
    )


def test_a_penalty_without_a_solution_is_passed_over(
    validation, text, attributes, monkeypatch
) -> None:
    tried, solve = [], ItemRegression.solve

    def refusing(self: ItemRegression, *told) -> None:
        tried.append(self.l2)
        if self.l2 < FITTING.l2:
            raise InputError("equations with a solution", "none", "raise l2")
        solve(self, *told)

    monkeypatch.setattr(ItemRegression, "solve", refusing)
    _, settled = chosen(FITTING, validation, text, attributes)
    assert min(tried) < FITTING.l2
    assert settled.l2 >= FITTING.l2


def test_the_search_of_a_run_settles_its_recipe(
    planted: Histories, text, attributes, tmp_path
) -> None:
    towers = {"towers": [LINEAR, TOWER], "objectives": [DROWNED, *recipe().objectives]}
    wanted = recipe(**towers, epochs=5, max_trials=6)
    found = search(wanted, planted, text, attributes, run(tmp_path)).recipe
    assert found.objectives[0].content_weight < DROWNED.content_weight
    assert found.objectives[1] is wanted.objectives[1]
    # As a manifest tells it.
    assert wanted.with_settings(found.settings).objectives[0] == found.objectives[0]
    fixed = replace(wanted, max_trials=0)
    left = search(fixed, planted, text, attributes, run(tmp_path / "fixed")).recipe
    assert left.objectives == wanted.objectives
