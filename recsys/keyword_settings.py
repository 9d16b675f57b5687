"""Settings as keyword arguments, in place of a command line: the same keys, checks and errors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any

from hydra import compose, initialize_config_dir, version
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from recsys.cli import CONFIG_DIR
from recsys.core.settings import shown
from recsys.errors import InputError
from recsys.overrides import HYDRA_VERSION, check_overrides, mapping, quoted

_MAPPINGS = ("event_weights",)
"""Settings that are a mapping themselves, whose keys are no settings."""


def composed(config_name: str, settings: Mapping[str, Any]) -> DictConfig:
    """The configuration that a command with these settings would have.

    Args:
        config_name: the primary config. settings: values by dotted key, or mappings of them;
            ``{"~a.b": None}`` takes a key out, as ``~a.b`` does on a command line.

    Raises:
        InputError: on a key, an option or a value that the command line would refuse, too.
    """
    overrides = [_override(key, value) for key, value in flattened(settings).items()]
    with _hydra_of_the_host_kept():
        check_overrides(CONFIG_DIR, config_name, overrides)
        with initialize_config_dir(str(CONFIG_DIR), version_base=HYDRA_VERSION):
            return compose(config_name, overrides)


def flattened(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key: ``{"a": {"b": 1}}`` as ``{"a.b": 1}``.

    Raises:
        InputError: when a key is no text, or is given twice.
    """
    flat: dict[str, Any] = {}
    for key, value in _nodes(settings):
        if key in flat:
            raise InputError(f"one value for {key!r}", "two", "leave out one of them")
        flat[key] = value
    return flat


def _nodes(settings: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if not isinstance(key, str):
            raise InputError("settings by name", shown(key), "write their keys as text")
        if isinstance(value, Mapping) and value and key.split(".")[-1] not in _MAPPINGS:
            yield from _nodes(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _override(key: str, value: Any) -> str:
    if key.startswith("~") and value is None:
        return key
    return f"{key}={_written(key, value)}"


def _written(key: str, value: Any) -> str:
    """A value in the grammar of overrides."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a number of NumPy or torch
        value = value.item()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | PathLike):
        return quoted(str(fspath(value)))
    if isinstance(value, list | tuple):
        return f"[{','.join(_written(key, one) for one in value)}]"
    if isinstance(value, Mapping):
        return mapping({str(name): _written(key, one) for name, one in value.items()})
    raise InputError(
        f"a number, text, true or false, none, or a list of them for {key!r}",
        f"{type(value).__name__} {shown(value)}",
        "give a plain value",
    )


@contextmanager
def _hydra_of_the_host_kept() -> Iterator[None]:
    """Give Hydra back what the host program has it hold: it may be an application of Hydra."""
    instance, base = GlobalHydra.instance(), version.VersionBase.instance()
    held, version_held = instance.hydra, base.version_base
    try:
        yield
    finally:
        instance.hydra = held
        GlobalHydra.set_instance(instance)
        base.version_base = version_held
