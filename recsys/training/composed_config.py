"""What a composed ``configs/train.yaml`` asks for, as plain objects: data, baselines, recipes."""

from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf, open_dict

from recsys.cli import CONFIG_DIR, input_error_below

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from recsys.baselines import Baseline, FitBaseline
    from recsys.data.histories import Histories
    from recsys.data.prepare import TrainingData
    from recsys.schema import Dataset
    from recsys.training.expected_time import Work
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


def without_text(cfg: DictConfig) -> DictConfig:
    """The same with ``text=none``, for a data set that has no text."""
    changed = cfg.copy()
    with open_dict(changed):
        changed.text = OmegaConf.load(CONFIG_DIR / "text" / "none.yaml")
    return changed


def item_vectors(
    cfg: DictConfig, texts: "Sequence[str]", done: "Callable[[int, int], None] | None" = None
) -> "tuple[NDArray[np.float32], str]":
    """Text vectors float32 [n, T] of n items, and the fingerprint of their encoder.

    Args:
        cfg: of the group ``text``. done: see ``EmbeddingCache.encode``.
    """
    from pathlib import Path

    from hydra.utils import instantiate

    from recsys.text.cache import EmbeddingCache
    from recsys.text.none import NoText

    encoder = instantiate(cfg.encoder)
    if isinstance(encoder, NoText):
        return encoder.encode(texts), encoder.fingerprint
    vectors = EmbeddingCache(Path(cfg.cache_dir)).encode(encoder, texts, done)
    return vectors, encoder.fingerprint


def work_of(cfg: DictConfig, data: "TrainingData", processes: int) -> "Work":
    """What a run has to do, for an estimate of its time."""
    from recsys.schema import USER_ID
    from recsys.training.expected_time import Work
    from recsys.training.folds import folds_made

    return Work(
        users=len(data.users),
        items=len(data.items),
        events=len(data.train),
        test_users=data.split.test[USER_ID].nunique(),
        characters=sum(map(len, data.catalog.texts())),
        epochs=cfg.retrieval.epochs,
        trials=cfg.retrieval.get("max_trials", 0),
        folds=folds_made(len(data.users), cfg.reranking.num_folds, cfg.reranking.max_lists),
        list_epochs=cfg.reranking.epochs,
        list_length=cfg.reranking.list_length,
        tuned=cfg.baselines.tune,
        processes=processes,
    )


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
        max_trials=cfg.get("max_trials", 0),
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
