"""Search spaces: Hydra overrides and the values that they may take."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from recsys.errors import InputError

SPACES = Path(__file__).parents[1] / "search_spaces.yaml"
_DIGITS = 4

Space = dict[str, BaseDistribution]
Params = dict[str, Any]
"""A value for each key of a space."""


def load_space(target: str, path: Path = SPACES) -> Space:
    """The space of a target, as the YAML file declares it."""
    spaces = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(spaces, dict)
    return {key: _distribution(key, dict(entry)) for key, entry in spaces[target].items()}


def _distribution(key: str, entry: Mapping[str, Any]) -> BaseDistribution:
    if set(entry) == {"choices"}:
        return CategoricalDistribution(entry["choices"])
    if not {"low", "high"} <= set(entry) <= {"low", "high", "log"}:
        raise InputError(
            f"{key!r} to have choices, or low, high and perhaps log",
            ", ".join(entry) or "nothing",
            "correct the search space",
        )
    whole = isinstance(entry["low"], int) and isinstance(entry["high"], int)
    kind = IntDistribution if whole else FloatDistribution
    return kind(entry["low"], entry["high"], log=entry.get("log", False))


def defaults(config: DictConfig, space: Space) -> Params:
    """The values that a configuration has for the keys of a space.

    Raises:
        InputError: when a key does not exist, or its value lies outside the space.
    """
    params = {key: OmegaConf.select(config, key) for key in space}
    for key, value in params.items():
        # Optuna itself would only warn of a value outside, and go on with it.
        if not _holds(space[key], value):
            raise InputError(
                f"the configuration's {key!r} to lie within the search space",
                "no such key" if value is None else str(value),
                f"widen it in {SPACES.name}: {space[key]}",
            )
    return params


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and distribution.low <= value <= distribution.high


def as_overrides(params: Mapping[str, Any]) -> list[str]:
    """``key=value`` for each parameter, real numbers cut to four digits.

    Trials run on these very strings, so that pasting them repeats a trial.
    """
    return [f"{key}={_text(value)}" for key, value in params.items()]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    # Via float again: 400 would be a whole number, where a real one is due.
    return str(float(f"{value:.{_DIGITS}g}")) if isinstance(value, float) else str(value)


def describe(space: Space) -> dict[str, str]:
    """Each distribution in words, to tell one space from another."""
    return {key: str(distribution) for key, distribution in space.items()}
