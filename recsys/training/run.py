"""One training run, from a composed configuration to an evaluated bundle.

Behind ``train.py``, which reads what the configuration names, and ``recsys.fit``, which is given
frames. Hydra ends here: everything that ``train`` calls takes plain objects.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from omegaconf import DictConfig, OmegaConf

from recsys.cli import input_error_below
from recsys.errors import InputError

if TYPE_CHECKING:
    from recsys.data.prepare import TrainingData
    from recsys.schema import Dataset
    from recsys.training.stage1 import RetrievalRecipe
    from recsys.training.stage2 import RerankingRecipe

STAGES = {"1": (1,), "2": (2,), "all": (1, 2)}


class Trained(NamedTuple):
    """metrics: the content of metrics.json. bundle, report: where they are."""

    metrics: dict[str, Any]
    bundle: Path
    report: Path


def train(cfg: DictConfig, load: "Callable[[DictConfig], Dataset] | None" = None) -> Trained:
    """Run the stages that ``cfg.stage`` names.

    Args:
        cfg: composed from ``configs/train.yaml``, with overrides that have been checked.
        load: where the data set comes from; None: ``load_dataset``, by what ``cfg.data`` says.

    Raises:
        InputError: on settings, data or a bundle that will not do.
    """
    if str(cfg.stage) not in STAGES:
        raise InputError("stage to be 1, 2 or all", repr(cfg.stage), "e.g. python train.py stage=1")
    if not 0 <= cfg.seed < 2**32:
        raise InputError("seed between 0 and 2**32 - 1", str(cfg.seed), "e.g. seed=0")
    check_names(cfg)
    # Imported here, so that --help and mistyped overrides answer without loading torch.
    from functools import partial

    import pytorch_lightning as pl
    import torch
    from hydra.utils import instantiate

    from recsys.baselines import fit_all
    from recsys.bundle import make_latest
    from recsys.core.threads import chosen_threads, use_threads
    from recsys.text.cache import EmbeddingCache
    from recsys.training import pipeline
    from recsys.training.finish import write_results, write_tensorboard
    from recsys.training.run_folder import open_run
    from recsys.training.stage1 import Run
    from recsys.training.stored_recipe import stored_recipe
    from recsys.training.workers import Workers, chosen_processes

    started = time.perf_counter()
    use_threads(chosen_threads(cfg.threads, 0))
    pl.seed_everything(cfg.seed, verbose=False)
    root, stages = Path(cfg.output_dir), STAGES[str(cfg.stage)]
    check_sizes(cfg)
    read: dict[str, str] = {}
    if 1 in stages:
        recipe = retrieval_recipe(cfg.retrieval, cfg.seed)
        build_index = instantiate(cfg.index).build
    else:
        stage1_bundle, stage1 = pipeline.find_stage1(Path(cfg.bundle))
        # The folds must be trained exactly as the stage 1 that is served was.
        recipe, build_index = stored_recipe(stage1)
        read["stage 1"] = stage1["version"]
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    dataset = (load or load_dataset)(cfg)
    data = split_data(cfg, dataset)
    threads = chosen_threads(cfg.threads, len(data.items))
    use_threads(threads)
    workers = Workers(
        chosen_processes(
            cfg.processes,
            threads,
            most=max(2, cfg.reranking.num_folds) if 2 in stages else 2,
            on_cpu=cfg.trainer.accelerator == "cpu" or not torch.accelerator.is_available(),
        ),
        threads,
    )
    read["rows"] = data.content_hash()
    if 1 not in stages:
        pipeline.check_same_data(stage1_bundle, stage1, data)
    name = f"{cfg.data.name}-stage{cfg.stage}" if cfg.name is None else str(cfg.name)
    run_folder = open_run(root, config, name, cfg.resume, read)

    logger = instantiate(cfg.logger) if cfg.logger else None
    run = Run(
        trainer_factory=instantiate(cfg.trainer),
        folder=run_folder.checkpoints,
        resume=run_folder.resumed,
        logger_factory=logger
        and (lambda name: logger(run_folder.tensorboard, name="", version=name)),
        workers=workers,
    )
    manifest = {
        "dataset": data.name,
        "split": data.split.name,
        "protocol": data.split.protocol,
        "seed": cfg.seed,
        "config": config,
    }
    curves = {}
    if 1 in stages:
        # A bundle of stage 1 alone is of no use to others where stage 2 is to follow.
        folder = run_folder.checkpoints if 2 in stages else root
        stage1_bundle = folder / run_folder.name
    with workers:
        workers.start()
        if 1 in stages and not (run_folder.resumed and stage1_bundle.exists()):
            encoder = instantiate(cfg.text.encoder)
            use_threads(chosen_threads(cfg.threads, None))
            vectors = EmbeddingCache(Path(cfg.text.cache_dir)).encode(encoder, data.catalog.texts())
            use_threads(threads)
            stage1_bundle, curves["Stage 1"] = pipeline.train_stage1(
                data,
                torch.nn.functional.pad(torch.from_numpy(vectors), (0, 0, 1, 0)),
                recipe,
                build_index,
                cfg.retrieval.num_candidates,
                {"retrieval": config["retrieval"], "index": config["index"], "seed": cfg.seed},
                run,
                pipeline.Destination(
                    folder,
                    run_folder.name,
                    manifest
                    | {"text": {"name": cfg.text.name, "fingerprint": encoder.fingerprint}},
                ),
            )
        if 2 in stages:
            reranking = reranking_recipe(cfg.reranking, cfg.seed)
            lists = pipeline.stage2_lists(
                data,
                stage1_bundle,
                recipe,
                build_index,
                reranking,
                cfg.reranking.num_folds,
                run,
            )
    if 2 in stages:
        _, curves["Stage 2"] = pipeline.train_stage2(
            data,
            stage1_bundle,
            lists,
            reranking,
            run,
            pipeline.Destination(root, run_folder.name, manifest),
        )

    bundle = root / run_folder.name
    fit_baselines = partial(fit_all, instantiate(cfg.baselines))
    metrics, recommender = pipeline.evaluate_bundle(bundle, data, fit_baselines, cfg.seed)
    minutes = (time.perf_counter() - started) / 60
    report = write_results(
        bundle,
        metrics,
        recommender,
        data,
        {name: curve.frame() for name, curve in curves.items()},
        {
            "Model": recommender.model_version,
            "Commit": str(recommender.manifest["git_commit"] or "unknown"),
            "Text model": recommender.manifest["text"]["name"],
            "Trained in": f"{minutes:.1f} min",
        },
    )
    make_latest(bundle)
    if logger is not None:
        write_tensorboard(
            run_folder.tensorboard / "results",
            metrics,
            recommender,
            {key: config[key] for key in ("stage", "seed", "retrieval", "reranking")}
            | {"data": cfg.data.name, "split": data.split.name, "text": cfg.text.name},
        )
    run_folder.close()
    return Trained(metrics, bundle, report)


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


def retrieval_recipe(cfg: DictConfig, seed: int) -> "RetrievalRecipe":
    from hydra.utils import instantiate

    from recsys.training.stage1 import RetrievalRecipe

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
    )
