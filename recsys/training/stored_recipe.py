"""The stage-1 recipe that a manifest tells, made again without running code that it chooses.

A bundle may come from elsewhere. What it calls a loss or an index is looked up in the tables below,
which are closed: names are never imported, and settings are numbers within bounds.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from recsys import losses
from recsys.bundle.settings import MAX_TOWERS, TOWER
from recsys.core.settings import FLAG, Setting, checked, or_null, real, shown, whole
from recsys.errors import InputError
from recsys.index.builders import (
    AutoIndexBuilder,
    FlatIndexBuilder,
    HnswIndexBuilder,
    IvfPqIndexBuilder,
)
from recsys.training.content_map import KernelRidge
from recsys.training.item_regression import ItemRegression
from recsys.training.retrieval import Objective
from recsys.training.retrieval_recipe import RetrievalRecipe
from recsys.training.spectral_filter import CHOSEN, SpectralFilter
from recsys.training.stage1 import BuildIndex

_REMEDY = "train both stages here: python train.py stage=all"
_TARGET, _PARTIAL = "_target_", "_partial_"


class _Part(NamedTuple):
    """make: what is called with the settings; it is found by its own name."""

    make: Callable[..., Any]
    settings: Mapping[str, Setting]


def _by_name(*parts: _Part) -> dict[str, _Part]:
    return {f"{part.make.__module__}.{part.make.__qualname__}": part for part in parts}


_WEIGHT = real(0, 1e12)
_SHARE = real(0, 1)
_OBJECTIVE = {
    "input_dropout": _SHARE,
    "l2": _WEIGHT,
    "learning_rate": real(0, 100),
    "new_user_share": _SHARE,
    "new_user_weight": _WEIGHT,
}
_LOSSES = _by_name(
    _Part(losses.full_softmax, {"temperature": real(1e-6, 1e6)}),
    _Part(
        losses.sampled_softmax,
        {
            "num_negatives": whole(1, 100_000),
            "temperature": real(1e-6, 1e6),
            "exponent": real(0, 10),
        },
    ),
)
_OBJECTIVES = _by_name(
    _Part(
        ItemRegression,
        {
            "l2": _WEIGHT,
            "session_weight": _WEIGHT,
            "time_scale": real(1e-6, 1e12),
            "content_weight": _WEIGHT,
            "length_discount": real(0, 10),
            "max_items": whole(1, 1_000_000),
        },
    ),
    _Part(
        SpectralFilter,
        {"sitting_weight": _WEIGHT, **CHOSEN},
    ),
    _Part(Objective, {**_OBJECTIVE, "loss": Setting("a loss", lambda value: callable(value))}),
)
_CONTENT_MAPS = _by_name(
    _Part(
        KernelRidge,
        {"l2": _WEIGHT, "bandwidth": real(1e-6, 1e6), "max_landmarks": whole(1, 100_000)},
    )
)
_INDEXES = _by_name(
    _Part(
        AutoIndexBuilder,
        {
            "exact_up_to": whole(0, 10_000_000),
            "recall": _SHARE,
            "depth": whole(1, 10_000),
        },
    ),
    _Part(FlatIndexBuilder, {}),
    _Part(
        HnswIndexBuilder,
        {
            "num_neighbors": whole(2, 512),
            "build_width": whole(1, 100_000),
            "search_width": whole(1, 100_000),
        },
    ),
    _Part(
        IvfPqIndexBuilder,
        {
            "num_lists": or_null(whole(1, 10_000_000)),
            "num_subvectors": or_null(whole(1, 65_536)),
            "code_bits": whole(1, 64),
            "num_probes": whole(1, 10_000_000),
        },
    ),
)
_NUMBERS = {
    "epochs": whole(1, 1_000_000),
    "validate_every": whole(1, 1_000_000),
    "patience": whole(0, 1_000_000),
    "num_validation": whole(0, 1_000_000),
    "batch_size": whole(1, 1_000_000),
    "max_history": whole(1, 1_000_000),
    "max_trials": whole(0, 1_000_000),
    "choose_weights": FLAG,
}
_GROUPS = ("towers", "content_map", "num_candidates")


def stored_recipe(manifest: Mapping[str, Any]) -> tuple[RetrievalRecipe, BuildIndex]:
    """How the stage 1 of a bundle was trained and indexed, by the ``stage1`` of its manifest.

    Raises:
        InputError: when it names anything but this package's own parts, or a setting is not a
            number within bounds, or the towers are not those of the manifest itself.
    """
    said = _mapping(manifest.get("stage1"), "stage1")
    retrieval = _mapping(said.get("retrieval"), "stage1.retrieval")
    numbers = {key: value for key, value in retrieval.items() if key not in _GROUPS}
    numbers = checked(numbers, _NUMBERS, "stage1.retrieval", _REMEDY)
    towers = [
        _mapping(tower, f"stage1.retrieval.towers.{shown(name)}")
        for name, tower in _mapping(retrieval.get("towers"), "stage1.retrieval.towers").items()
    ]
    models = [tower.get("model") for tower in towers]
    if models != manifest.get("towers") or not 1 <= len(models) <= MAX_TOWERS:
        raise InputError("in stage1 the towers of the manifest itself", "others", _REMEDY)
    seed = checked({"seed": said.get("seed")}, {"seed": whole(0, 2**32 - 1)}, "stage1", _REMEDY)
    try:
        recipe = RetrievalRecipe(
            towers=[checked(model, TOWER, "stage1 tower", _REMEDY) for model in models],
            objectives=[_objective(tower.get("objective")) for tower in towers],
            content_map=_made(retrieval.get("content_map"), _CONTENT_MAPS, "stage1 content_map"),
            **numbers,
            **seed,
        )
    except TypeError as error:  # one is missing
        raise InputError("all settings of stage1", str(error), _REMEDY) from error
    return recipe, _made(said.get("index"), _INDEXES, "stage1.index").build


def _objective(said: object) -> Objective | ItemRegression | SpectralFilter:
    settings = _mapping(said, "stage1 objective")
    if "loss" in settings:
        loss = _mapping(settings["loss"], "stage1 loss")
        if loss.get(_PARTIAL) is not True:
            raise InputError(f"{_PARTIAL}: true in stage1 loss", "none", _REMEDY)
        called = {key: value for key, value in loss.items() if key != _PARTIAL}
        settings = {**settings, "loss": _made(called, _LOSSES, "stage1 loss", as_function=True)}
    objective: Objective | ItemRegression | SpectralFilter = _made(
        settings, _OBJECTIVES, "stage1 objective"
    )
    return objective


def _made(said: object, table: Mapping[str, _Part], where: str, as_function: bool = False) -> Any:
    """What a table has under the name that ``said`` gives, called with the other settings."""
    settings = dict(_mapping(said, where))
    name = settings.pop(_TARGET, None)
    part = table.get(name) if isinstance(name, str) else None
    if part is None:
        raise InputError(f"{where} to be one of {', '.join(table)}", shown(name), _REMEDY)
    settings = checked(settings, part.settings, where, _REMEDY)
    try:
        return partial(part.make, **settings) if as_function else part.make(**settings)
    except TypeError as error:
        raise InputError(f"the settings of {name} in {where}", str(error), _REMEDY) from error


def _mapping(said: object, where: str) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise InputError(f"settings by name in {where}", shown(said), _REMEDY)
    return said
