"""Every configuration composes, and what it names can be built."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, get_method, instantiate
from omegaconf import DictConfig, OmegaConf

from recsys.training.item_regression import ItemRegression
from recsys.training.retrieval import Objective
from recsys.training.spectral_filter import SpectralFilter

CONFIGS = Path(__file__).parents[1] / "configs"
GROUPS = [
    f"{path.parent.name}={path.stem}"
    for path in sorted(CONFIGS.glob("*/*.yaml"))
    if path.parent.name != "hydra"
]
REQUIRED = {
    "data=files": ["data.interactions=events.csv", "data.items=items.csv"],
    "text=hf": ["text.model=some/model"],
}


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(name, overrides=list(overrides))


def targets(node: object) -> list[str]:
    """Every ``_target_`` below a resolved config."""
    if isinstance(node, dict):
        own = [node["_target_"]] if "_target_" in node else []
        return own + [t for value in node.values() for t in targets(value)]
    return [t for value in node for t in targets(value)] if isinstance(node, list) else []


@pytest.mark.parametrize("choice", GROUPS)
def test_every_option_of_every_group_composes_and_names_what_exists(choice: str) -> None:
    cfg = composed("train", choice, *REQUIRED.get(choice, []))
    resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    for target in targets(resolved):
        try:
            get_class(target)
        except ValueError:
            get_method(target)


@pytest.mark.parametrize("name", ["train", "serve", "batch"])
def test_primary_configs_resolve_without_overrides(name: str) -> None:
    assert OmegaConf.to_container(composed(name), resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("option", ["flat", "hnsw", "ivfpq"])
def test_every_index_can_be_built(option: str) -> None:
    assert callable(instantiate(composed("train", f"index={option}").index).build)


@pytest.mark.parametrize("option", ["two_tower", "large_catalog"])
def test_every_objective_of_the_towers_can_be_built(option: str) -> None:
    cfg = composed("train", f"retrieval={option}")
    objectives = [instantiate(tower.objective) for tower in cfg.retrieval.towers.values()]
    assert all(
        isinstance(objective, Objective | ItemRegression | SpectralFilter)
        for objective in objectives
    )


def test_an_experiment_sets_what_the_primary_config_does_too_and_options_go_before_it() -> None:
    assert composed("train").processes is None
    assert composed("train", "experiment=quick").processes == 1
    assert composed("train", "experiment=quick", "processes=2").processes == 2


def test_large_catalogs_form_no_matrix_of_all_pairs_of_items() -> None:
    for tower in composed("train", "retrieval=large_catalog").retrieval.towers.values():
        assert not isinstance(instantiate(tower.objective), ItemRegression)
