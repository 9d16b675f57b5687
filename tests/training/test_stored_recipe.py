"""A recipe from a manifest: made again as it was, or refused; never is anything run for it."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from recsys.errors import InputError
from recsys.training.composed_config import retrieval_recipe
from recsys.training.stored_recipe import stored_recipe

CONFIGS = Path(__file__).parents[2] / "configs"


def written(*overrides: str) -> tuple[Any, dict[str, Any]]:
    """A configuration, and what train.py writes of it into a manifest."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=list(overrides))
    config = OmegaConf.to_container(cfg, resolve=True)
    towers = [tower["model"] for tower in config["retrieval"]["towers"].values()]
    stage1 = {"retrieval": config["retrieval"], "index": config["index"], "seed": 7}
    return cfg, json.loads(json.dumps({"towers": towers, "stage1": stage1}))


@pytest.mark.parametrize("retrieval", ["two_tower", "large_catalog"])
@pytest.mark.parametrize("index", ["flat", "hnsw", "ivfpq"])
def test_it_is_the_recipe_of_the_configuration(retrieval: str, index: str) -> None:
    cfg, manifest = written(f"retrieval={retrieval}", f"index={index}")
    recipe, build_index = stored_recipe(manifest)
    expected = retrieval_recipe(cfg.retrieval, 7)
    # Partial functions, of which no two are equal, as their parts; Hydra has a class of its own.
    assert repr(recipe) == repr(expected).replace("_DeferredTarget(", "functools.partial(")
    assert build_index.__self__ == instantiate(cfg.index)


def at(manifest: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    *parents, last = path.split("/")
    node = manifest["stage1"]
    for name in parents:
        node = node[name]
    return node, last


RUNS = {"_target_": "builtins.print", "_partial_": True}
OBJECTIVE = "retrieval/towers/content/objective"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((p, {"_target_": "os.system", "command": "true"}) for p in ("index", "retrieval")),
        ("index/_target_", "pandas.read_pickle"),
        ("index/_target_", "recsys.index.CandidateIndex.load"),
        ("index/_target_", "recsys.training.content_map.KernelRidge"),
        ("index/_target_", ["recsys.index.builders.FlatIndexBuilder"]),
        ("index/_target_", None),
        ("index/path", "x"),
        ("index", None),
        ("index", "recsys.index.builders.FlatIndexBuilder"),
        ("retrieval/content_map", RUNS),
        ("retrieval/content_map/l2", RUNS),
        ("retrieval/content_map/l2", "${oc.env:HOME}"),
        ("retrieval/content_map/max_landmarks", 10**12),
        (OBJECTIVE, RUNS),
        (f"{OBJECTIVE}/loss", RUNS),
        (f"{OBJECTIVE}/loss", "recsys.losses.full_softmax"),
        (f"{OBJECTIVE}/loss/_target_", "recsys.losses.masked_mean"),
        (f"{OBJECTIVE}/loss/_partial_", False),
        (f"{OBJECTIVE}/loss/temperature", 0),
        (f"{OBJECTIVE}/loss/query", 1),
        (f"{OBJECTIVE}/learning_rate", True),
        (f"{OBJECTIVE}/l2", -1.0),
        ("retrieval/towers/linear/objective/max_items", 10**9),
        ("retrieval/towers/linear/model/dim", 10**9),
        ("retrieval/towers", {}),
        ("retrieval/towers", []),
        ("retrieval/epochs", 10**12),
        ("retrieval/batch_size", 0),
        ("retrieval/max_history", "all"),
        ("retrieval/_target_", "os.system"),
        ("retrieval/_args_", [1]),
        ("seed", -1),
        ("seed", "${seed}"),
    ],
)
def test_anything_else_is_refused_in_one_line(
    path: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a name was imported")

    _, manifest = written()
    node, last = at(manifest, path)
    node[last] = value
    monkeypatch.setattr("hydra.utils.instantiate", refuse)
    monkeypatch.setattr("hydra._internal.utils._locate", refuse)
    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(InputError) as refused:
        stored_recipe(manifest)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def without(path: str) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        node, last = at(manifest, path)
        del node[last]

    return change


@pytest.mark.parametrize(
    "path",
    [
        "index",
        "seed",
        "retrieval",
        "retrieval/epochs",
        "retrieval/content_map",
        f"{OBJECTIVE}/loss",
    ],
)
def test_what_is_missing_is_told(path: str) -> None:
    _, manifest = written()
    without(path)(manifest)
    with pytest.raises(InputError):
        stored_recipe(manifest)


def test_towers_of_another_width_than_the_stored_ones_are_refused() -> None:
    """Their sizes are checked against the files; those of the recipe against theirs."""
    _, manifest = written()
    other = copy.deepcopy(manifest)
    other["stage1"]["retrieval"]["towers"]["linear"]["model"]["dim"] = 129
    with pytest.raises(InputError, match="the towers of the manifest itself"):
        stored_recipe(other)
    with pytest.raises(InputError):
        stored_recipe({key: value for key, value in manifest.items() if key != "towers"})
