"""How much towers count: what validation chooses, and what a recipe makes of it."""

from dataclasses import replace

import pytest
import torch

from recsys import losses
from recsys.artifact import build_two_tower
from recsys.data.prepare import hold_out_random
from recsys.errors import InputError
from recsys.features import content_features
from recsys.training.retrieval import Objective
from recsys.training.retrieval_recipe import RetrievalRecipe
from recsys.training.spectral_filter import SpectralFilter
from recsys.training.stage1 import fit_two_tower, search
from recsys.training.tower_weights import choose_weights
from recsys.training.validation_scores import Validation
from tests.training.conftest import NUM_GROUPS, NUM_ITEMS, TOWER, recipe, run

LINEAR = {
    "dim": NUM_GROUPS,
    "use_content": False,
    "use_bias": False,
    "hidden_dim": 0,
    "dropout": 0.0,
    "id_dropout": 0.0,
    "length_exponent": 0.5,
}
FILTER = SpectralFilter(directions=NUM_GROUPS, power=1.0, tilt=0.0)


def both(**changes: object) -> RetrievalRecipe:
    """A filter that tells the planted groups apart, and a tower that is learned."""
    objectives = [FILTER, Objective(losses.full_softmax, 0.5, 1e-4, 0.02)]
    return recipe(**({"towers": [LINEAR, TOWER], "objectives": objectives} | changes))


def test_a_tower_that_knows_nothing_does_not_count(planted, text, attributes) -> None:
    remaining, held_out = hold_out_random(planted, 2, 0)
    torch.manual_seed(0)
    counts = torch.from_numpy(planted.item_counts(NUM_ITEMS))
    content = content_features(text, attributes, counts)
    model = build_two_tower([LINEAR, TOWER], content, 0).eval()
    FILTER.fit(model.members[0], remaining, content)
    weights = choose_weights(model, Validation.of(remaining, held_out, 100, 0))
    assert weights == model.weights
    assert weights[0] == 1.0
    assert weights[1] <= 0.1


def test_a_tower_beside_one_that_knows_nothing_counts_more(planted, text, attributes) -> None:
    remaining, held_out = hold_out_random(planted, 2, 0)
    model = two_filters(planted, text, attributes)
    content = content_features(text, attributes, torch.from_numpy(planted.item_counts(NUM_ITEMS)))
    FILTER.fit(model.members[1], remaining, content)
    assert choose_weights(model, Validation.of(remaining, held_out, 100, 0))[1] > 1.0


def test_towers_that_know_the_same_stay_as_they_are(planted, text, attributes) -> None:
    remaining, held_out = hold_out_random(planted, 2, 0)
    model = two_filters(planted, text, attributes)
    content = content_features(text, attributes, torch.from_numpy(planted.item_counts(NUM_ITEMS)))
    for tower in model.members:
        FILTER.fit(tower, remaining, content)
    assert choose_weights(model, Validation.of(remaining, held_out, 100, 0)) == (1.0, 1.0)


def two_filters(planted, text, attributes):
    """Of two towers for a filter, which know nothing yet."""
    torch.manual_seed(0)
    content = content_features(text, attributes, torch.from_numpy(planted.item_counts(NUM_ITEMS)))
    return build_two_tower([LINEAR, LINEAR], content, 0).eval()


def test_a_weight_scales_the_scores_of_its_tower(planted, text, attributes) -> None:
    counts = torch.from_numpy(planted.item_counts(NUM_ITEMS))
    content = content_features(text, attributes, counts)
    model = build_two_tower([LINEAR, TOWER], content, 0).eval()
    history = planted.pad(torch.arange(1, 9).numpy())
    model.standardize(history.item_idx, history.mask)
    before = model.scales.clone()
    model.weights = (1.0, 0.25)
    model.standardize(history.item_idx, history.mask)
    torch.testing.assert_close(model.scales, before * torch.tensor([1.0, 0.25]))


def test_what_search_chooses_is_what_later_fits_are_given(
    planted, text, attributes, tmp_path
) -> None:
    found = search(both(epochs=2, choose_weights=True), planted, text, attributes, run(tmp_path))
    chosen = both(choose_weights=True).with_settings(found.recipe.settings)
    assert chosen.weights == found.recipe.weights
    model = fit_two_tower(chosen, 1, planted, text, attributes, run(tmp_path / "later"))
    assert model.weights == chosen.weights


def test_a_tower_without_weight_is_not_trained(planted, text, attributes, tmp_path) -> None:
    chosen = both(weights=(1.0, 0.0))
    assert not chosen.is_learned
    model = fit_two_tower(chosen, 5, planted, text, attributes, run(tmp_path))
    assert not list(tmp_path.iterdir())
    assert model.scales[1] == 0.0
    assert both().is_learned


@pytest.mark.parametrize(
    "settings",
    [
        {"weights": [1.0]},
        {"weights": [1.0, -1.0]},
        {"weights": "11"},
        {"objectives": [{}]},
        {"objectives": [{"l2": 1.0}, {}]},
        {"towers": []},
        [],
    ],
)
def test_settings_that_are_none_of_the_recipe_are_refused(settings: object) -> None:
    with pytest.raises(InputError):
        both().with_settings(settings)


def test_settings_come_back_from_a_manifest() -> None:
    chosen = replace(both(), weights=(1.0, 0.5))
    assert both().with_settings(chosen.settings) == chosen
    assert both().with_settings(None).weights is None
