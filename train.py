"""Train, evaluate and bundle the recommender: ``python train.py stage=1 | 2 | all``.

Hydra ends here: everything that ``train`` calls takes plain objects.
"""

import logging
import shlex
import time
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from recsys import cli
from recsys.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from recsys.baselines import Baseline, FitBaseline
    from recsys.data.histories import Histories
    from recsys.data.prepare import TrainingData
    from recsys.schema import Dataset
    from recsys.training.stage1 import RetrievalRecipe
    from recsys.training.stage2 import RerankingRecipe

log = logging.getLogger(__name__)

SERVE = ("auto", "stage1", "stage2")
STAGES = {"1": (1,), "2": (2,), "all": (1, 2)}


def train(cfg: DictConfig) -> dict[str, Any]:
    """Run the stages that ``cfg.stage`` names; returns the content of metrics.json."""
    if str(cfg.stage) not in STAGES:
        raise InputError("stage to be 1, 2 or all", repr(cfg.stage), "e.g. python train.py stage=1")
    if str(cfg.serve) not in SERVE:
        raise InputError(f"serve to be one of {', '.join(SERVE)}", repr(cfg.serve), "correct it")
    if not 0 <= cfg.seed < 2**32:
        raise InputError("seed between 0 and 2**32 - 1", str(cfg.seed), "e.g. seed=0")
    check_names(cfg)
    # Imported here, so that --help and mistyped overrides answer without loading torch.
    from pathlib import Path

    import pytorch_lightning as pl
    import torch
    from hydra.utils import instantiate

    from recsys.bundle import make_latest, read_manifest
    from recsys.core.threads import chosen_threads, use_threads
    from recsys.data.prepare import prepare_all
    from recsys.recommender import Recommender
    from recsys.text.cache import EmbeddingCache
    from recsys.training import pipeline
    from recsys.training.champion import unseen_by
    from recsys.training.finish import write_results, write_tensorboard
    from recsys.training.refit import AGREEMENT_K, check_agreement, refit
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
    dataset = load_dataset(cfg)
    data = split_data(cfg, dataset)
    champion = None if cfg.champion is None else Recommender.load(Path(cfg.champion))
    if champion is not None:
        data = unseen_by(champion, data)
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
    refits = bool(cfg.refit) and 2 in stages
    # Of the bundle whose table is reported, nobody is served where another is fitted on all rows.
    evaluated = (run_folder.checkpoints / "evaluated" if refits else root) / run_folder.name
    if 2 in stages:
        _, curves["Stage 2"] = pipeline.train_stage2(
            data,
            stage1_bundle,
            lists,
            reranking,
            run,
            pipeline.Destination(evaluated.parent, run_folder.name, manifest),
            str(cfg.serve),
        )

    bundle = root / run_folder.name
    fit_baselines = baseline_fitter(cfg, data.split.name)
    metrics, recommender = pipeline.evaluate_bundle(
        evaluated, data, fit_baselines, cfg.seed, champion
    )
    if refits:
        everything = prepare_all(dataset)
        destination = pipeline.Destination(root, run_folder.name, manifest)
        refit(evaluated, everything, recipe, build_index, run, destination)
        share = check_agreement(recommender, Recommender.load(bundle, stage2=True))
        metrics["served"] = {
            "rows": len(everything.train),
            f"same_items@{AGREEMENT_K}": round(share, 8),
        }
    elif cfg.refit:
        log.info("stage=1 alone is not fitted on all rows, since stage=2 needs it as it is")
    minutes = (time.perf_counter() - started) / 60
    report = write_results(
        bundle,
        metrics,
        recommender,
        data,
        {name: curve.frame() for name, curve in curves.items()},
        {
            "Model": read_manifest(bundle)["version"],
            "Table": table_of(metrics),
            "Commit": str(recommender.manifest["git_commit"] or "unknown"),
            "Text model": recommender.manifest["text"]["name"],
            "Trained in": f"{minutes:.1f} min",
        },
    )
    if cfg.promote:
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
    print_summary(metrics, str(bundle), str(report), str(root))
    return metrics


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
        found = cli.input_error_below(error)
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


def table_of(metrics: dict[str, Any]) -> str:
    """Which model the table is of."""
    if "served" not in metrics:
        return "of the model that is served"
    rows = metrics["served"]["rows"]
    return (
        f"of a model without the held-out rows; served is one of the same recipe, of all {rows:,}"
    )


def print_summary(metrics: dict[str, Any], bundle: str, report: str, root: str) -> None:
    from rich.console import Console

    from recsys.evaluation import results_table
    from recsys.results import best_line

    Console().print(results_table(metrics))
    # As they are: what is in brackets may be a part of a path.
    for label, value in (
        ("best", best_line(metrics)),
        ("table", table_of(metrics)),
        ("bundle", bundle),
        ("report", report),
        ("watch", f"tensorboard --logdir {shlex.quote(root)}"),
        ("serve", f"python serve.py {cli.as_override('bundle', bundle)}"),
    ):
        print(f"{label:>8}  {value}")


if __name__ == "__main__":
    cli.run(train, "train", conditions=["data.positive"])
