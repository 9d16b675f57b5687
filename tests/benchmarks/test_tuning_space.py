"""Search spaces and the overrides that they turn into."""

import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.tuning.space import as_overrides, defaults, load_space
from benchmarks.tuning.targets import TARGETS, configuration
from recsys.errors import InputError


@pytest.mark.parametrize("target", TARGETS)
def test_the_configuration_as_it_is_lies_within_each_space(target):
    cfg = configuration([])
    space = load_space(target)
    params = defaults(cfg, space)
    assert set(params) == set(space)
    again = configuration(as_overrides(params))
    assert defaults(again, space) == pytest.approx(params)


def test_entries_become_distributions(tmp_path):
    path = tmp_path / "spaces.yaml"
    path.write_text(
        "x:\n  a: {low: 1, high: 9}\n  b: {low: 1.0e-3, high: 1.0, log: true}\n"
        "  c: {choices: [false, true]}\n"
    )
    assert load_space("x", path) == {
        "a": IntDistribution(1, 9),
        "b": FloatDistribution(1e-3, 1.0, log=True),
        "c": CategoricalDistribution([False, True]),
    }


@pytest.mark.parametrize("wrong", ["{low: 1}", "{low: 1, high: 2, step: 1}", "{}"])
def test_entries_of_another_form_are_refused(tmp_path, wrong):
    path = tmp_path / "spaces.yaml"
    path.write_text(f"x:\n  a: {wrong}\n")
    with pytest.raises(InputError, match="'a' to have choices, or low, high"):
        load_space("x", path)


@pytest.mark.parametrize(("value", "found"), [(0.5, "0.5"), (None, "no such key"), (True, "True")])
def test_a_default_outside_the_space_is_refused(value, found):
    with pytest.raises(InputError, match=f"search space; found {found}"):
        defaults(OmegaConf.create({"a": value}), {"a": FloatDistribution(1.0, 2.0)})


def test_overrides_are_short_and_keep_their_type():
    params = {"a.b": 0.123456, "c": 400.0, "d": 1.23456e-5, "e": 64, "f": True}
    assert as_overrides(params) == ["a.b=0.1235", "c=400.0", "d=1.235e-05", "e=64", "f=true"]


def test_mistyped_overrides_are_refused():
    with pytest.raises(InputError, match="unknown key"):
        configuration(["baselines.als.factor=3"])
    assert configuration(["lambdamart.num_leaves=7"]).lambdamart.num_leaves == 7
