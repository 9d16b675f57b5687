"""One training run, from a composed configuration to an evaluated bundle.

Behind ``train.py``, which reads what the configuration names, and ``recsys.fit``, which is given
frames. Hydra ends here: everything that ``train`` calls takes plain objects.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from omegaconf import DictConfig, OmegaConf

from recsys.cli import CONFIG_DIR
from recsys.errors import InputError
from recsys.training.catalogue_size import exceeds, retrieval_for
from recsys.training.composed_config import (
    baseline_fitter,
    check_names,
    check_sizes,
    item_vectors,
    load_dataset,
    reranking_recipe,
    retrieval_recipe,
    split_data,
    without_text,
    work_of,
)

if TYPE_CHECKING:
    from recsys.core.phases import Phases
    from recsys.schema import Dataset
    from recsys.training.run_folder import RunFolder

log = logging.getLogger(__name__)

SERVE = ("auto", "stage1", "stage2")
STAGES = {"1": (1,), "2": (2,), "all": (1, 2)}


class Trained(NamedTuple):
    """metrics: the content of metrics.json. bundle, report: where they are."""

    metrics: dict[str, Any]
    bundle: Path
    report: Path


def train(
    cfg: DictConfig,
    load: "Callable[[DictConfig], Dataset] | None" = None,
    phases: "Phases | None" = None,
    opened: "Callable[[RunFolder], None] | None" = None,
    arguments: "Sequence[str] | None" = None,
) -> Trained:
    """Run the stages that ``cfg.stage`` names.

    Args:
        cfg: composed from ``configs/train.yaml``, with overrides that have been checked.
        load: where the data set comes from; None: ``load_dataset``, by what ``cfg.data`` says.
        phases: are told what the run is at. opened: is told of the run's folder. arguments: see
            ``open_run``.

    Raises:
        InputError: on settings, data or a bundle that will not do.
    """
    if str(cfg.stage) not in STAGES:
        raise InputError("stage to be 1, 2 or all", repr(cfg.stage), "e.g. python train.py stage=1")
    if str(cfg.serve) not in SERVE:
        raise InputError(f"serve to be one of {', '.join(SERVE)}", repr(cfg.serve), "correct it")
    if not 0 <= cfg.seed < 2**32:
        raise InputError("seed between 0 and 2**32 - 1", str(cfg.seed), "e.g. seed=0")
    check_names(cfg)
    # Imported here, so that --help and mistyped overrides answer without loading torch.
    import pytorch_lightning as pl
    import torch
    from hydra.utils import instantiate

    from recsys.bundle import make_latest, read_manifest
    from recsys.core.phases import Phases
    from recsys.core.threads import chosen_threads, use_threads
    from recsys.data.prepare import prepare_all
    from recsys.recommender import Recommender
    from recsys.text.none import NAME as NO_TEXT
    from recsys.training import expected_time, pipeline
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
    phases = phases or Phases()
    phases.plan(
        expected_time.planned(
            stages,
            has_text=cfg.text.name != NO_TEXT,
            has_baselines=len(cfg.baselines) > 1,
            refits=bool(cfg.refit) and 2 in stages,
        )
    )
    phases.start(expected_time.DATA)
    dataset = (load or load_dataset)(cfg)
    if not dataset.has_text:
        cfg = without_text(cfg)
    data = split_data(cfg, dataset)
    if 1 in stages and exceeds(cfg.retrieval, len(data.items)):
        cfg = cfg.copy()
        cfg.retrieval = retrieval_for(cfg.retrieval, len(data.items), CONFIG_DIR)
        recipe = retrieval_recipe(cfg.retrieval, cfg.seed)
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
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
    run_folder = open_run(root, config, name, cfg.resume, read, arguments)
    if opened is not None:
        opened(run_folder)

    logger = instantiate(cfg.logger) if cfg.logger else None
    run = Run(
        trainer_factory=instantiate(cfg.trainer),
        folder=run_folder.checkpoints,
        resume=run_folder.resumed,
        logger_factory=logger
        and (lambda name: logger(run_folder.tensorboard, name="", version=name)),
        workers=workers,
        phases=phases,
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
    is_kept = run_folder.resumed and stage1_bundle.exists()
    phases.end()
    phases.expect(
        work_of(cfg, data, workers.number).seconds(has_stage1=is_kept),
        # How long these take tells nothing where vectors or checkpoints are there.
        apart=expected_time.OF_STAGE1 if run_folder.resumed else [expected_time.TEXT],
    )
    with workers:
        workers.start()
        if 1 in stages and not is_kept:
            phases.start(expected_time.TEXT)
            use_threads(chosen_threads(cfg.threads, None))
            vectors, fingerprint = item_vectors(cfg.text, data.catalog.texts(), phases.part)
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
                    manifest | {"text": {"name": cfg.text.name, "fingerprint": fingerprint}},
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
    # The bundle that is evaluated is the one that is served, unless that is fitted on all rows.
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
        evaluated, data, fit_baselines, cfg.seed, champion, phases
    )
    if refits:
        everything = prepare_all(dataset)
        destination = pipeline.Destination(root, run_folder.name, manifest)
        refit(evaluated, everything, recipe, build_index, run, destination)
        share = check_agreement(recommender, Recommender.load(bundle, stage2=True))
        metrics["served"] = {
            "rows": len(everything.train),
            f"same_items@{AGREEMENT_K}": share,
        }
    elif cfg.refit:
        log.info("stage=1 alone is not fitted on all rows, since stage=2 needs it as it is")
    phases.start(expected_time.REPORT)
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
            "Chosen on validation rows": chosen(recommender.manifest),
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
    return Trained(metrics, bundle, report)


def table_of(metrics: dict[str, Any]) -> str:
    """Which model the table is of."""
    if "served" not in metrics:
        return "of the model that is served"
    rows = metrics["served"]["rows"]
    return (
        f"of a model without the held-out rows; served is one of the same recipe, of all {rows:,}"
    )


def chosen(manifest: Mapping[str, Any]) -> str:
    """What stage 1's search has chosen, for a reader."""
    half_life, settled = manifest.get("recency_half_life"), manifest.get("settled") or {}
    weights, exponent = settled.get("weights"), manifest.get("strength_exponent")
    told = [
        f"epochs {manifest['epochs']}",
        "no half-life" if half_life is None else f"half-life of {half_life:g} events",
        *([f"strength exponent {exponent:g}"] if exponent else []),
        *(
            f"{name} {value:g}"
            for objective in settled.get("objectives", [])
            for name, value in objective.items()
            if value is not None
        ),
        *([] if weights is None else ["weights " + " : ".join(f"{one:g}" for one in weights)]),
    ]
    return ", ".join(told)
