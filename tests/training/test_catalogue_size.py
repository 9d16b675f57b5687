"""Which settings of stage 1 a catalogue takes by its size."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from recsys.cli import CONFIG_DIR
from recsys.errors import InputError
from recsys.training.catalogue_size import retrieval_for


def retrieval(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("train", overrides=list(overrides)).retrieval


@pytest.mark.parametrize(("option", "num_items"), [("two_tower", 10_000), ("large_catalog", 10**6)])
def test_a_catalogue_within_bounds_takes_what_is_configured(option: str, num_items: int) -> None:
    cfg = retrieval(f"retrieval={option}")
    assert retrieval_for(cfg, num_items, CONFIG_DIR) is cfg


def test_a_larger_one_takes_the_settings_for_large_ones() -> None:
    assert retrieval_for(retrieval(), 10_001, CONFIG_DIR) == retrieval("retrieval=large_catalog")


def test_what_was_asked_for_stays() -> None:
    asked = ("retrieval.epochs=3", "retrieval.towers.content.model.dim=16")
    expected = retrieval("retrieval=large_catalog", *asked)
    assert retrieval_for(retrieval(*asked), 10_001, CONFIG_DIR) == expected


def test_the_bound_may_be_moved() -> None:
    bound = "retrieval.towers.linear.objective.max_items"
    assert retrieval_for(retrieval(f"{bound}=20"), 21, CONFIG_DIR) == retrieval(
        "retrieval=large_catalog"
    )
    cfg = retrieval(f"{bound}=20000")
    assert retrieval_for(cfg, 20_000, CONFIG_DIR) is cfg


def test_settings_that_large_ones_lack_are_refused() -> None:
    cfg = retrieval("retrieval.towers.linear.objective.content_weight=1")
    with pytest.raises(InputError, match="content_weight"):
        retrieval_for(cfg, 10_001, CONFIG_DIR)
