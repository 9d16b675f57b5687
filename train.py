"""Train, evaluate and bundle the recommender: ``python train.py stage=1 | 2 | all``.

Hydra ends here: everything that ``train`` calls takes plain objects.
"""

import time
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from recsys import cli
from recsys.errors import InputError

if TYPE_CHECKING:
    from recsys.data.prepare import TrainingData
    from recsys.training.stage1 import RetrievalRecipe
    from recsys.training.stage2 import RerankingRecipe

STAGES = {"1": (1,), "2": (2,), "all": (1, 2)}


def train(cfg: DictConfig) -> dict[str, Any]:
    """Run the stages that ``cfg.stage`` names; returns the content of metrics.json."""
    if str(cfg.stage) not in STAGES:
        raise InputError("stage to be 1, 2 or all", repr(cfg.stage), "e.g. python train.py stage=1")
    if not 0 <= cfg.seed < 2**32:
        raise InputError("seed between 0 and 2**32 - 1", str(cfg.seed), "e.g. seed=0")
    # Imported here, so that --help and mistyped overrides answer without loading torch.
    from functools import partial
    from pathlib import Path

    import pytorch_lightning as pl
    import torch
    from hydra.utils import instantiate

    from recsys.baselines import fit_all
    from recsys.bundle import read_manifest
    from recsys.text.cache import EmbeddingCache
    from recsys.training import pipeline
    from recsys.training.finish import write_results, write_tensorboard
    from recsys.training.run_folder import open_run
    from recsys.training.stage1 import Run

    started = time.perf_counter()
    pl.seed_everything(cfg.seed, verbose=False)
    root, stages = Path(cfg.output_dir), STAGES[str(cfg.stage)]
    stage1_bundle = Path(cfg.bundle)
    if 1 not in stages:
        pipeline.find_stage1(stage1_bundle)
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    data = load_data(cfg)
    run_folder = open_run(root, config, cfg.name or f"{cfg.data.name}-stage{cfg.stage}", cfg.resume)
    bundle = root / run_folder.name

    logger = instantiate(cfg.logger) if cfg.logger else None
    run = Run(
        trainer_factory=instantiate(cfg.trainer),
        folder=run_folder.checkpoints,
        resume=run_folder.resumed,
        logger_factory=logger
        and (lambda name: logger(run_folder.tensorboard, name="", version=name)),
    )
    manifest = {
        "dataset": data.name,
        "split": data.split.name,
        "protocol": data.split.protocol,
        "seed": cfg.seed,
        "config": config,
    }
    curves = {}
    if 1 in stages and not (run_folder.resumed and bundle.exists()):
        encoder = instantiate(cfg.text.encoder)
        vectors = EmbeddingCache(Path(cfg.text.cache_dir)).encode(encoder, data.catalog.texts())
        stage1_bundle, curves["Stage 1"] = pipeline.train_stage1(
            data,
            torch.nn.functional.pad(torch.from_numpy(vectors), (0, 0, 1, 0)),
            retrieval_recipe(cfg.retrieval, cfg.seed),
            instantiate(cfg.index).build,
            cfg.retrieval.num_candidates,
            {"retrieval": config["retrieval"], "index": config["index"], "seed": cfg.seed},
            run,
            pipeline.Destination(
                root,
                run_folder.name,
                manifest | {"text": {"name": cfg.text.name, "fingerprint": encoder.fingerprint}},
            ),
        )
    if 2 in stages:
        stage1_bundle = bundle if 1 in stages else stage1_bundle
        # The folds must be trained exactly as the stage 1 that is served was.
        stage1 = OmegaConf.create(read_manifest(stage1_bundle)["stage1"])
        lists = pipeline.stage2_lists(
            data,
            stage1_bundle,
            retrieval_recipe(stage1.retrieval, stage1.seed),
            instantiate(stage1.index).build,
            cfg.reranking.num_folds,
            cfg.reranking.lists_per_user,
            cfg.seed,
            run,
        )
        _, curves["Stage 2"] = pipeline.train_stage2(
            data,
            stage1_bundle,
            lists,
            reranking_recipe(cfg.reranking, cfg.seed),
            run,
            pipeline.Destination(root, run_folder.name, manifest),
        )

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
    if logger is not None:
        write_tensorboard(
            run_folder.tensorboard / "results",
            metrics,
            recommender,
            {key: config[key] for key in ("stage", "seed", "retrieval", "reranking")}
            | {"data": cfg.data.name, "split": data.split.name, "text": cfg.text.name},
        )
    run_folder.close()
    print_summary(metrics, str(bundle), str(report), str(root))
    return metrics


def load_data(cfg: DictConfig) -> "TrainingData":
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from recsys.data.prepare import prepare
    from recsys.data.splits import make_split

    try:
        dataset = instantiate(cfg.data.source)
    except InstantiationException as error:
        found = cli.input_error_below(error)
        if found is None:
            raise
        raise found from error
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
        batch_size=cfg.batch_size,
        epochs=cfg.epochs,
        learning_rate=cfg.learning_rate,
        weight_decay=cfg.weight_decay,
        average_share=cfg.average_share,
        seed=seed,
    )


def print_summary(metrics: dict[str, Any], bundle: str, report: str, root: str) -> None:
    from rich.console import Console

    from recsys.evaluation import results_table

    console = Console()
    console.print(results_table(metrics))
    for label, value in (
        ("bundle", bundle),
        ("report", report),
        ("watch", f"tensorboard --logdir {root}"),
        ("serve", f"python serve.py bundle={bundle}"),
    ):
        console.print(f"{label:>8}  {value}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    cli.run(train, "train")
