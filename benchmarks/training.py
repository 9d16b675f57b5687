"""Trains the product on given rows and loads it as serving would: from its bundle on disk."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from recsys.data.prepare import TrainingData
from recsys.recommender import Recommender
from recsys.training.fit import TrainerFactory
from recsys.training.folds import CandidateLists
from recsys.training.pipeline import Destination, stage2_lists, train_stage1, train_stage2
from recsys.training.retrieval_recipe import RetrievalRecipe
from recsys.training.stage1 import BuildIndex, Run
from recsys.training.stage2 import RerankingRecipe


@dataclass(frozen=True)
class Recipe:
    """Both stages' recipes. reranking: None leaves stage 2 out. num_candidates: given to it."""

    retrieval: RetrievalRecipe
    reranking: RerankingRecipe | None
    num_candidates: int
    num_folds: int
    build_index: BuildIndex
    trainer_factory: TrainerFactory


TrainRecommender = Callable[[TrainingData, Tensor], Recommender]
"""Trains on the data's training rows alone, given text vectors float32 [N + 1, T]."""


def train_recommender(recipe: Recipe, data: TrainingData, text: Tensor) -> Recommender:
    """Train on the data's training rows alone; the bundle's folder is removed after loading."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bundle = write_stage1(recipe, data, text, root)
        if recipe.reranking is not None:
            lists = candidate_lists(recipe, data, bundle, root)
            bundle = write_stage2(recipe, data, bundle, lists, root)
        return Recommender.load(bundle, stage2=True)


def write_stage1(recipe: Recipe, data: TrainingData, text: Tensor, root: Path) -> Path:
    """A bundle of stage 1 below ``root``; text: float32 [N + 1, T]."""
    bundle, _ = train_stage1(
        data,
        text,
        recipe.retrieval,
        recipe.build_index,
        recipe.num_candidates,
        {},
        Run(recipe.trainer_factory, root / "fit", resume=False),
        _destination(data, root, "stage1"),
    )
    return bundle


def candidate_lists(
    recipe: Recipe, data: TrainingData, stage1: Path, root: Path
) -> list[CandidateLists]:
    """What stage 2 learns from."""
    assert recipe.reranking is not None
    return stage2_lists(
        data,
        stage1,
        recipe.retrieval,
        recipe.build_index,
        recipe.reranking,
        recipe.num_folds,
        Run(recipe.trainer_factory, root / "folds", resume=False),
    )


def write_stage2(
    recipe: Recipe,
    data: TrainingData,
    stage1: Path,
    lists: Sequence[CandidateLists],
    root: Path,
) -> Path:
    """A bundle of both stages below ``root``, in place of an earlier one."""
    assert recipe.reranking is not None
    run = Run(recipe.trainer_factory, root / "fit", resume=False)
    destination = _destination(data, root, "stage2")
    bundle, _ = train_stage2(data, stage1, lists, recipe.reranking, run, destination, "stage2")
    return bundle


def _destination(data: TrainingData, root: Path, name: str) -> Destination:
    manifest = {"dataset": data.name, "split": data.split.name, "text": None}
    return Destination(root, name, manifest)
