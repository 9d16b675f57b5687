"""Checks of a command line's overrides against the config that they change.

Hydra takes any value for any key and reports errors over many lines. Here keys must exist, options
of a group must exist, a value must have the type of the default that it replaces, and mandatory
values must be set.
"""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recsys.errors import InputError

HYDRA_VERSION = "1.3"

_ACCEPTED: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("an integer", (int,)),
    float: ("a number", (float, int)),
    str: ("a string", (str, int, float)),  # a number is a fine name
    list: ("a list", (list,)),
    dict: ("a mapping", (dict,)),
}
"""For the type of a default: how to call it, and the types of value that may replace it."""
_MAY_BE_NULL = ("data.columns.interactions.", "data.columns.items.", "data.columns.users.")
_NEVER_NULL = (".user_id", ".item_id")
"""Keys that begin so may be null whatever their default, a file's column that is not to be read,
but for those that end so."""


def check_overrides(
    config_dir: Path,
    config_name: str,
    overrides: Sequence[str],
    *,
    multirun: bool = False,
    complete: bool = True,
) -> None:
    """Check overrides as the command line gives them.

    Hydra's prefixes ``+``, ``++`` and ``~``, ``group@package`` and ``hydra.*`` are left to Hydra.

    Args:
        multirun: whether ``key=a,b`` and ranges are sweeps; each value is then checked.
        complete: whether mandatory values (``???``) must be set.

    Raises:
        InputError: on the first mistake.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir.resolve()), version_base=HYDRA_VERSION):
        parsed = [_parse(text) for text in overrides]
        ours = [override for override in parsed if not override.is_hydra_override()]
        hydras = [text for text, o in zip(overrides, parsed, strict=True) if o not in ours]
        if not multirun:
            _check_single(ours)
        choices = [override for override in ours if _options(override.key_or_group)]
        values = [override for override in ours if not _options(override.key_or_group)]
        for choice in choices:
            _check_choice(choice)
        # One base config per combination of group options: they decide which keys exist.
        for combination in itertools.product(*map(_assignments, choices)):
            base = _compose(config_name, combination)
            for override in values:
                _check_value(config_name, base, override)
            firsts = [next(_assignments(override)) for override in values]
            config = _compose(config_name, [*combination, *firsts, *hydras])
            if complete:
                _check_complete(config)


def mapping(values: Mapping[str, str]) -> str:
    """A mapping as an override writes it, of values that are written so already.

    Hydra knows no quotes around keys, but signs behind a backslash.
    """
    names = (re.sub(r"([\\()\[\]{}:=,])", r"\\\1", name) for name in values)
    pairs = zip(names, values.values(), strict=True)
    return "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"


def quoted(text: str) -> str:
    """A string as an override writes it, whatever it holds; nothing in it is interpolated."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"'{escaped}'"


def value_of(override: str) -> Any:
    """The value of ``key=value``, without its quotes.

    Raises:
        InputError: when it is not of this form.
    """
    try:
        return OverridesParser.create().parse_override(override).value()
    except HydraException as error:
        raise InputError("key=value", repr(override), "quote a value with signs") from error


def _parse(text: str) -> Override:
    loader = GlobalHydra.instance().config_loader()
    try:
        return OverridesParser.create(config_loader=loader).parse_override(text)
    except HydraException as error:
        remedy = "quote a value that holds special characters: \"key='a b'\""
        raise InputError("key=value", repr(text), remedy) from error


def _options(group: str) -> list[str]:
    """The options of a config group; empty when there is no such group."""
    loader = GlobalHydra.instance().config_loader()
    options: list[str] = loader.get_group_options(group, results_filter=ObjectType.CONFIG)
    return options


def _values(override: Override) -> list[Any]:
    """The values that an override stands for: its one, or those of its sweep."""
    if override.is_discrete_sweep():
        return [Override._convert_value(value) for value in override.sweep_iterator()]
    return [override.value()]


def _assignments(override: Override) -> Iterator[str]:
    """The override as given, or one per value of its sweep."""
    if override.is_discrete_sweep():
        key = override.get_key_element()
        return (f"{key}={value}" for value in override.sweep_string_iterator())
    return iter([str(override.input_line)])


def _compose(config_name: str, overrides: Iterable[str]) -> DictConfig:
    try:
        return compose(config_name, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        reasons = [str(error), str(error.__cause__ or "")]
        found = ": ".join(reason for reason in reasons if reason)
        raise InputError("a valid configuration", found, "see --help") from error


def _check_single(overrides: Iterable[Override]) -> None:
    for override in overrides:
        if override.is_sweep_override():
            raise InputError(
                f"one value for {override.key_or_group!r}",
                repr(override.input_line),
                "add -m to run once for each value, or write a list as key=[a,b]",
            )


def _check_choice(choice: Override) -> None:
    if choice.is_delete():
        return
    group, options = choice.key_or_group, _options(choice.key_or_group)
    for value in _values(choice):
        for option in value if isinstance(value, list) else [value]:
            if option is not None and str(option) not in options:
                close = difflib.get_close_matches(str(option), options, n=1)
                raise InputError(
                    f"{group!r} to be one of {', '.join(options)}",
                    f"unknown option {str(option)!r}",
                    f"did you mean {group}={close[0]}?"
                    if close
                    else f"set {group}= to one of these",
                )


def _check_value(config_name: str, base: DictConfig, override: Override) -> None:
    key = override.key_or_group
    if override.type != OverrideType.CHANGE:
        return
    if not _has_key(base, key):
        remedy = _similar(config_name, base, key)
        raise InputError("a key of the configuration", f"unknown key {key!r}", remedy)
    try:
        default = OmegaConf.select(base, key)
    except OmegaConfBaseException:
        return  # It refers to a value that is not set yet, so its type is open.
    if _kind(default) not in _ACCEPTED:
        return  # null or ???: the type is open.
    expected, accepted = _ACCEPTED[_kind(default)]
    may_be_null = key.startswith(_MAY_BE_NULL) and not key.endswith(_NEVER_NULL)
    for value in _values(override):
        if type(value) not in accepted and not (value is None and may_be_null):
            found = "null" if value is None else repr(value)
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            raise InputError(f"{expected} for {key!r}", found, f"the default is {key}={shown}")


def _kind(value: Any) -> type:
    """The type of a value, containers of OmegaConf counted as Python's."""
    if isinstance(value, DictConfig):
        return dict
    return list if isinstance(value, ListConfig) else type(value)


def _has_key(config: DictConfig, key: str) -> bool:
    """Whether a dotted key exists, be its value null or mandatory."""
    *parents, name = key.split(".")
    try:
        node = OmegaConf.select(config, ".".join(parents)) if parents else config
    except OmegaConfBaseException:
        return False
    if isinstance(node, ListConfig):
        return name.isdecimal() and int(name) < len(node)
    return isinstance(node, DictConfig) and name in list(node)


def _similar(config_name: str, config: DictConfig, key: str) -> str:
    """What was probably meant: another option of the group, the name elsewhere, or a slip."""
    group, _, name = key.rpartition(".")
    for option in _options(group.partition(".")[0]) if group else []:
        choice = f"{group.partition('.')[0]}={option}"
        if _has_key(_compose(config_name, [choice]), key):
            return f"it exists with {choice}"
    known = [other for other, _ in _nodes(config)]
    close = [other for other in known if other.endswith(f".{name}")]
    close = close or difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else "see --help for the keys"


def _nodes(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key with its node, nothing resolved."""
    for name in config:
        key, node = f"{prefix}{name!s}", config._get_node(name)
        yield key, node
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from _nodes(node, f"{key}.")


def _check_complete(config: DictConfig) -> None:
    missing = [key for key, node in _nodes(config) if node._is_missing()]
    if missing:
        example = " ".join(f"{key}=…" for key in missing)
        raise InputError(f"a value for {', '.join(missing)}", "none", f"set {example}")
