"""Trains the product on given rows and loads it as serving would: from its bundle on disk."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from recsys.data.prepare import TrainingData
from recsys.recommender import Recommender
from recsys.training.fit import TrainerFactory
from recsys.training.pipeline import Destination, stage2_lists, train_stage1, train_stage2
from recsys.training.stage1 import BuildIndex, RetrievalRecipe, Run
from recsys.training.stage2 import RerankingRecipe


@dataclass(frozen=True)
class Recipe:
    """Both stages' recipes. reranking: None leaves stage 2 out. num_candidates: given to it."""

    retrieval: RetrievalRecipe
    reranking: RerankingRecipe | None
    num_candidates: int
    num_folds: int
    lists_per_user: int
    build_index: BuildIndex
    trainer_factory: TrainerFactory


TrainRecommender = Callable[[TrainingData, Tensor], Recommender]
"""Trains on the data's training rows alone, given text vectors float32 [N + 1, T]."""


def train_recommender(recipe: Recipe, data: TrainingData, text: Tensor) -> Recommender:
    """Train on the data's training rows alone; the bundle's folder is removed after loading."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run = Run(recipe.trainer_factory, root / "fit", resume=False)
        manifest = {"dataset": data.name, "split": data.split.name, "text": None}
        bundle, _ = train_stage1(
            data,
            text,
            recipe.retrieval,
            recipe.build_index,
            recipe.num_candidates,
            {},
            run,
            Destination(root, "stage1", manifest),
        )
        if recipe.reranking is not None:
            lists = stage2_lists(
                data,
                bundle,
                recipe.retrieval,
                recipe.build_index,
                recipe.num_folds,
                recipe.lists_per_user,
                recipe.reranking.seed,
                run,
            )
            bundle, _ = train_stage2(
                data, bundle, lists, recipe.reranking, run, Destination(root, "stage2", manifest)
            )
        return Recommender.load(bundle)
