"""What a composed ``configs/train.yaml`` asks for, as plain objects: data, baselines, recipes."""

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from recsys.cli import input_error_below

if TYPE_CHECKING:
    from collections.abc import Callable

    from recsys.baselines import Baseline, FitBaseline
    from recsys.data.histories import Histories
    from recsys.data.prepare import TrainingData
    from recsys.schema import Dataset
    from recsys.training.retrieval_recipe import RetrievalRecipe
    from recsys.training.stage2 import RerankingRecipe


def check_names(cfg: DictConfig) -> None:
    """Raise InputError on a name that no bundle or data set can have, before anything is done."""
    from recsys.core.names import check_plain_name

    remedy = "use letters, digits and dashes"
    check_plain_name(str(cfg.data.name), "data.name", remedy)
    if cfg.name is not None:
        check_plain_name(str(cfg.name), "name", remedy)


def check_sizes(cfg: DictConfig) -> None:
    """Raise InputError where a bundle of these models would be refused once it is read."""
    from recsys.bundle.settings import check_models

    to_write = {
        "towers": [dict(tower.model) for tower in cfg.retrieval.towers.values()],
        "num_candidates": cfg.retrieval.num_candidates,
        "max_query_history": cfg.retrieval.max_history,
        "epochs": cfg.retrieval.epochs,
        "cross_encoder": dict(cfg.reranking.cross_encoder),
        "max_history": cfg.reranking.max_history,
        "relation_rank": cfg.reranking.relation_rank,
    }
    check_models(to_write, "the configuration", "see configs/retrieval and configs/reranking")


def load_data(cfg: DictConfig) -> "TrainingData":
    return split_data(cfg, load_dataset(cfg))


def load_dataset(cfg: DictConfig) -> "Dataset":
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        dataset: Dataset = instantiate(cfg.data.source)
    except InstantiationException as error:
        found = input_error_below(error)
        if found is None:
            raise
        raise found from error
    return dataset


def split_data(cfg: DictConfig, dataset: "Dataset") -> "TrainingData":
    from recsys.data.prepare import prepare
    from recsys.data.splits import make_split

    split = make_split(
        dataset.interactions,
        cfg.data.split,
        num_test=cfg.data.num_test,
        test_fraction=cfg.data.test_fraction,
        seed=cfg.data.split_seed,
    )
    return prepare(dataset, split)


def baseline_fits(cfg: DictConfig) -> "dict[str, FitBaseline]":
    """The baselines of ``configs/baselines``, by name."""
    from hydra.utils import instantiate

    return {str(name): instantiate(fit) for name, fit in cfg.items() if name != "tune"}


def baseline_fitter(
    cfg: DictConfig, split: str
) -> "Callable[[Histories, int], dict[str, Baseline]]":
    """Fits the configured baselines to training rows, tuned where that is asked for."""
    from functools import partial

    from recsys.baseline_search import fit_tuned
    from recsys.baselines import fit_all

    fits = baseline_fits(cfg.baselines)
    return (
        partial(fit_tuned, fits, hold_out(cfg, split))
        if cfg.baselines.tune
        else partial(fit_all, fits)
    )


def hold_out(cfg: DictConfig, split: str) -> "Callable[[Histories], tuple[Histories, Histories]]":
    """Carves validation rows out of training rows as ``split`` has carved out the test rows."""
    from functools import partial

    from recsys.data.validation import hold_out_like

    return partial(
        hold_out_like,
        split,
        num_test=cfg.data.num_test,
        test_fraction=cfg.data.test_fraction,
        seed=cfg.seed,
    )


def retrieval_recipe(cfg: DictConfig, seed: int) -> "RetrievalRecipe":
    from hydra.utils import instantiate

    from recsys.training.retrieval_recipe import RetrievalRecipe

    towers = list(cfg.towers.values())
    return RetrievalRecipe(
        towers=[dict(tower.model) for tower in towers],
        objectives=[instantiate(tower.objective) for tower in towers],
        content_map=instantiate(cfg.content_map),
        epochs=cfg.epochs,
        validate_every=cfg.validate_every,
        patience=cfg.patience,
        num_validation=cfg.num_validation,
        batch_size=cfg.batch_size,
        max_history=cfg.max_history,
        seed=seed,
        choose_weights=cfg.choose_weights,
    )


def reranking_recipe(cfg: DictConfig, seed: int) -> "RerankingRecipe":
    from recsys.training.stage2 import RerankingRecipe

    return RerankingRecipe(
        cross_encoder=dict(cfg.cross_encoder),
        max_history=cfg.max_history,
        relation_rank=cfg.relation_rank,
        list_length=cfg.list_length,
        batch_size=cfg.batch_size,
        epochs=cfg.epochs,
        learning_rate=cfg.learning_rate,
        weight_decay=cfg.weight_decay,
        average_share=cfg.average_share,
        seed=seed,
        max_lists=cfg.max_lists,
    )
