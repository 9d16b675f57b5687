"""``python train.py resume=true`` alone: the other options are those of the interrupted run."""

from collections.abc import Sequence
from pathlib import Path

_OF_THE_PLACE = "output_dir"
_RESUME = "resume"


def resumed_arguments(given: Sequence[str]) -> list[str]:
    """The overrides of the newest interrupted run that agrees with those that are given.

    Without ``resume=true`` and where no run agrees, they are those that are given: whether a run of
    exactly this configuration can be gone on with is for ``open_run`` to say.

    Args:
        given: overrides of ``configs/train.yaml``.
    """
    values = {key: one for one in given if (key := _key(one))}
    if values.get(_RESUME, "").lower() != f"{_RESUME}=true":
        return list(given)
    # Imported here, since a run that starts anew needs none of it yet.
    from recsys.training.run_folder import IGNORED_KEYS, interrupted_arguments

    told = [one for one in given if _key(one) not in {*IGNORED_KEYS, _OF_THE_PLACE}]
    for stored in interrupted_arguments(_output_dir(values.get(_OF_THE_PLACE))):
        if set(told) <= set(stored):
            return [*(one for one in stored if _key(one) not in values), *given]
    return list(given)


def _key(override: str) -> str:
    """Of ``key=value``; empty for what has none, such as a deletion."""
    key, sign, _ = override.partition("=")
    return key if sign else ""


def _output_dir(override: str | None) -> Path:
    from omegaconf import OmegaConf

    from recsys.cli import CONFIG_DIR
    from recsys.overrides import value_of

    if override is not None:
        return Path(str(value_of(override)))
    return Path(str(OmegaConf.select(OmegaConf.load(CONFIG_DIR / "train.yaml"), _OF_THE_PLACE)))
