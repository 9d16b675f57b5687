"""Stage 1 by the size of the catalogue: settings for large ones in the place of the default."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recsys.errors import InputError

log = logging.getLogger(__name__)

DEFAULT, LARGE = "two_tower", "large_catalog"
_BOUND = "max_items"


def exceeds(retrieval: DictConfig, num_items: int) -> bool:
    """Whether a tower of the configuration is fitted to fewer items than these alone."""
    objectives = [tower.objective for tower in retrieval.towers.values()]
    return any(num_items > one.get(_BOUND, num_items) for one in objectives)


def retrieval_for(retrieval: DictConfig, num_items: int, config_dir: Path) -> DictConfig:
    """``retrieval`` itself, or ``retrieval=large_catalog`` where the catalogue is too large for it.

    What differs from the default in ``retrieval`` was asked for, and stays.

    Args:
        config_dir: of the package, with its ``retrieval`` group.

    Raises:
        InputError: when a setting that was asked for is none of ``large_catalog``.
    """
    if not exceeds(retrieval, num_items):
        return retrieval
    default, large = (
        OmegaConf.load(config_dir / "retrieval" / f"{name}.yaml") for name in (DEFAULT, LARGE)
    )
    assert isinstance(default, DictConfig)
    assert isinstance(large, DictConfig)
    before, known = dict(_leaves(default)), dict(_leaves(large))
    for key, value in _leaves(retrieval):
        if (key in before and before[key] == value) or key.endswith(f".{_BOUND}"):
            continue
        if key not in known:
            raise InputError(
                f"settings of retrieval={LARGE}, which a catalogue of {num_items:,} items takes",
                f"retrieval.{key}",
                f"leave it out, or raise the tower's objective.{_BOUND} where memory allows",
            )
        OmegaConf.update(large, key, value)
    log.info("%s items: retrieval=%s", f"{num_items:,}", LARGE)
    return large


def _leaves(cfg: DictConfig, parent: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted key."""
    for name, value in cfg.items():
        key = f"{parent}.{name!s}" if parent else str(name)
        if isinstance(value, DictConfig):
            yield from _leaves(value, key)
        else:
            yield key, value
