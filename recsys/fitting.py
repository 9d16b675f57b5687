"""``recsys.fit``: the training of ``train.py``, given frames instead of files."""

import atexit
import functools
import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.core.settings import shown
from recsys.errors import InputError
from recsys.keyword_settings import composed, flattened

# What is heavy is imported where it is used, so that mistyped settings are told at once.
if TYPE_CHECKING:
    from omegaconf import DictConfig

    from recsys.model import Model
    from recsys.schema import Dataset

log = logging.getLogger(__name__)

_TABLES = ("interactions", "items", "users")
_OF_DATA = (
    *("split", "num_test", "test_fraction", "split_seed", "columns", "genre_separator"),
    *("event_weights", "positive", "count_repeats", "half_life_days"),
)
"""Settings of ``data`` that need no ``data.`` in front."""


def fit(
    interactions: object,
    items: object,
    users: object = None,
    *,
    output_dir: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> "Model":
    """Train on frames, evaluate, and return the model.

    The frames are checked and cleaned by the rules for files, see ``data/README.md``; training is
    that of ``python train.py data=files``. What it changes of the process (seeds, threads,
    handlers) is as before afterwards.

    Args:
        interactions: a frame of pandas, Polars or Arrow with ``user_id, item_id`` and perhaps
            ``timestamp, rating, type`` and ``weight``. items: with ``item_id, title`` and perhaps
            ``description, genres, year, release_date``. users: with ``user_id`` and any attributes.
        output_dir: where the bundle, logs and text vectors go; None: to a temporary folder, which
            lives as long as the model does. progress: whether to write a line per step to standard
            error.
        settings: those of the command line, by name, nested or dotted: ``stage=1``,
            ``experiment="quick"``, ``retrieval={"epochs": 5}``, ``**{"retrieval.epochs": 5}``.
            Those of ``data`` need no prefix: ``split="random"``.

    Raises:
        InputError: on a setting or a frame that will not do, before training.
    """
    tables = {"interactions": interactions, "items": items, "users": users}
    temporary = None
    chosen = _chosen(settings, has_users=users is not None)
    if output_dir is None:
        temporary = Path(tempfile.mkdtemp(prefix="recsys-"))
    try:
        cfg = composed("train", _with_folders(chosen, output_dir or temporary, output_dir is None))
        model = _trained(cfg, tables, progress)
    except BaseException:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    if temporary is not None:
        weakref.finalize(model, shutil.rmtree, temporary, ignore_errors=True)
    return model


def _trained(cfg: "DictConfig", tables: Mapping[str, Any], progress: bool) -> "Model":
    from hydra.errors import InstantiationException

    from recsys.cli import input_error_below
    from recsys.guest import as_guest
    from recsys.model import load
    from recsys.training.run import train

    with as_guest(progress):
        try:
            done = train(cfg, partial(_dataset, tables))
        except InstantiationException as error:
            found = input_error_below(error)
            if found is None:
                raise
            raise found from error
    return load(done.bundle)


def _dataset(tables: Mapping[str, Any], cfg: "DictConfig") -> "Dataset":
    from omegaconf import OmegaConf

    from recsys.data import files

    told: Any = OmegaConf.to_container(cfg.data, resolve=True)
    dataset = files.load(
        **tables,
        columns=told["columns"],
        event_weights=told["event_weights"],
        positive=told["positive"],
        count_repeats=told["count_repeats"],
        half_life_days=told["half_life_days"],
        genre_separator=cfg.data.genre_separator,
        name=cfg.data.name,
    )
    log.info("%s interactions of %s items", *map(len, (dataset.interactions, dataset.items)))
    return dataset


def _chosen(settings: Mapping[str, Any], has_users: bool) -> dict[str, Any]:
    """Settings by dotted key, those of ``data`` in their place."""
    flat: dict[str, Any] = {}
    for key, value in flattened(settings).items():
        name = f"data.{key}" if key.split(".")[0] in _OF_DATA else key
        if name in ("data", *(f"data.{table}" for table in _TABLES), "data.separator"):
            raise InputError(
                "frames as data, given to fit() as its first arguments",
                f"{key}={shown(value)}",
                "leave it out, or train on files by python train.py",
            )
        if name in flat:
            raise InputError(f"one value for {name!r}", "two", "leave out one of them")
        flat[name] = value
    # What a configuration says of its data; the frames themselves are none of its values.
    named = {f"data.{table}": table for table in _TABLES if table != "users" or has_users}
    return {"data": "files", "data.name": "frames", **named} | flat


def _with_folders(
    settings: dict[str, Any], root: str | Path | None, is_temporary: bool
) -> dict[str, Any]:
    if is_temporary:  # there is nobody to look at them
        settings = {"logger": "none"} | settings
    if "text.cache_dir" not in settings and "RECSYS_CACHE" not in os.environ:
        cache = _shared_cache() if is_temporary else Path(str(root)) / "cache"
        settings |= {"text.cache_dir": cache / "text"}
    return settings | {"output_dir": root}


@functools.cache
def _shared_cache() -> Path:
    """Text vectors of all temporary models of this process: a text is embedded once."""
    folder = Path(tempfile.mkdtemp(prefix="recsys-cache-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
