"""The candidate lists that re-rankers are tuned on, made once per stage-1 setting and draw."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import recsys
from benchmarks.tuning.rows import ValidationDraw
from recsys.data.histories import Histories
from recsys.retriever import Retriever
from recsys.text.reduction import TextReduction
from recsys.training.fit import TrainerFactory
from recsys.training.folds import (
    CandidateLists,
    build_extractor,
    candidate_lists,
    out_of_fold_lists,
)
from recsys.training.retrieval_recipe import RetrievalRecipe
from recsys.training.stage1 import BuildIndex, Run, build_retriever, fit_two_tower, search

log = logging.getLogger(__name__)

_TENSORS = ("candidates", "tower_scores", "relevance", "num_relevant", "gains", "wanted")


@dataclass(frozen=True)
class RerankingLists:
    """folds: what a re-ranker learns from. served: the lists of a stage 1 trained on all events
    of a validation draw, with the draw's held-out events marked: what it is judged by.
    """

    folds: list[CandidateLists]
    served: CandidateLists


def make_lists(
    draw: ValidationDraw,
    text: Tensor,
    attributes: Tensor,
    recipe: RetrievalRecipe,
    build_index: BuildIndex,
    trainer_factory: TrainerFactory,
    *,
    num_candidates: int,
    num_folds: int,
    relation_rank: int,
    max_history: int,
    seed: int,
) -> RerankingLists:
    """As ``train_stage1`` and ``train_stage2`` do on the events that the draw leaves for training.

    Args:
        text: float32 [N + 1, T]. attributes: float32 [N + 1, A]. seed: of the folds.
    """
    reduced = TextReduction.fit(text, relation_rank)(text)
    with TemporaryDirectory() as folder:

        def run(name: str) -> Run:
            return Run(trainer_factory, Path(folder) / name, resume=False)

        def fit(train: Histories, number: int) -> Retriever:
            log.info("lists: training stage 1, %d of %d", number + 1, num_folds + 1)
            model = fit_two_tower(
                chosen.recipe,
                chosen.epochs,
                train,
                text,
                attributes,
                run(f"fold{number}"),
                number,
                chosen.counting,
            )
            return build_retriever(model, train, build_index, recipe.max_history)

        log.info("lists: searching stage 1's settings")
        chosen = search(recipe, draw.train, text, attributes, run("search"))
        served = candidate_lists(
            draw.train,
            draw.held_out,
            draw.targets.user_idx,
            fit(draw.train, 0),
            build_extractor(draw.train, reduced, max_history),
            num_candidates,
        )
        folds = out_of_fold_lists(
            draw.train,
            reduced,
            lambda train, fold: fit(train, 1 + fold),
            num_folds=num_folds,
            num_candidates=num_candidates,
            max_history=max_history,
            seed=seed,
        )
    return RerankingLists(folds, served)


class ListCache:
    """Lists in memory and in files, each under a hash of its settings and of the package's source:
    an edit of either gives other lists.

    Signal extractors are not stored but built again from the stored events.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loaded: dict[Path, RerankingLists] = {}

    def get(
        self,
        settings: Mapping[str, Any],
        reduced_text: Tensor,
        max_history: int,
        make: Callable[[], RerankingLists],
    ) -> RerankingLists:
        """Lists of these settings; ``make`` is called where they are not known yet.

        Args:
            settings: everything that the lists depend on, as JSON can tell it.
        """
        content = json.dumps([settings, _source_hash()], sort_keys=True)
        name = hashlib.sha256(content.encode()).hexdigest()[:24]
        path = self.folder / f"{name}.safetensors"
        if path not in self.loaded:
            if not path.is_file():
                self._write(path, make())
            self.loaded[path] = _unflatten(load_file(path), reduced_text, max_history)
        return self.loaded[path]

    def _write(self, path: Path, lists: RerankingLists) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        save_file(_flatten(lists), partial)
        partial.replace(path)


def _flatten(lists: RerankingLists) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for number, fold in enumerate([lists.served, *lists.folds]):
        arrays = {name: getattr(fold, name) for name in _TENSORS}
        arrays["user_idx"] = torch.from_numpy(fold.user_idx)
        for field in fields(Histories):
            arrays[f"histories.{field.name}"] = torch.from_numpy(
                getattr(fold.histories, field.name)
            )
        # The file format takes no two tensors that share memory, as the users' attributes do.
        tensors |= {f"{number}.{name}": array.clone() for name, array in arrays.items()}
    return tensors


def _unflatten(
    tensors: Mapping[str, Tensor], reduced_text: Tensor, max_history: int
) -> RerankingLists:
    numbers = sorted({int(name.split(".")[0]) for name in tensors})
    served, *folds = (
        _read_fold(
            {name.partition(".")[2]: t for name, t in tensors.items() if name.startswith(f"{n}.")},
            reduced_text,
            max_history,
        )
        for n in numbers
    )
    return RerankingLists(folds, served)


def _read_fold(
    tensors: Mapping[str, Tensor], reduced_text: Tensor, max_history: int
) -> CandidateLists:
    names = [field.name for field in fields(Histories)]
    histories = Histories(*(tensors[f"histories.{name}"].numpy() for name in names))
    extractor = build_extractor(histories, reduced_text, max_history)
    return CandidateLists(
        histories, extractor, tensors["user_idx"].numpy(), *(tensors[name] for name in _TENSORS)
    )


def _source_hash() -> str:
    root = Path(recsys.__path__[0])
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
