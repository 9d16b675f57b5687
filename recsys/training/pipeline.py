"""The road from prepared data to an evaluated bundle, stage by stage."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.artifact import load_artifact, save_artifact
from recsys.baselines import Baseline, rank
from recsys.bundle import MANIFEST_FILE, read_manifest
from recsys.core.phases import Phases
from recsys.data.histories import Histories
from recsys.data.prepare import TrainingData
from recsys.data.splits import TEMPORAL
from recsys.data.strengths import strongest_type
from recsys.data.user_attributes import align_users
from recsys.errors import InputError
from recsys.evaluation import Targets, evaluate, ranked_tensor
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.results import CHAMPION
from recsys.schema import TYPE, ExternalId
from recsys.text.reduction import TextReduction
from recsys.training import expected_time
from recsys.training.callbacks import Curves
from recsys.training.champion import champion_ranking
from recsys.training.folds import CandidateLists, out_of_fold_lists
from recsys.training.new_users import fit_new_users
from recsys.training.retrieval_recipe import RetrievalRecipe
from recsys.training.stage1 import (
    BuildIndex,
    Run,
    build_retriever,
    fit_two_tower,
    fold_retriever,
    search,
)
from recsys.training.stage2 import RerankingRecipe, encoder_config, fit_stage2

log = logging.getLogger(__name__)

EVALUATION_K = 100
AUTO = "auto"

_KEPT = (
    *("data_fingerprint", "towers", "epochs", "num_candidates", "max_query_history"),
    *("user_attributes", "stage1", "text", "new_users"),
)
"""What the manifest of both stages takes over from that of stage 1."""


@dataclass(frozen=True)
class Destination:
    """Where a bundle goes, and what its manifest says of the run."""

    root: Path
    name: str
    manifest: Mapping[str, Any]


def train_stage1(
    data: TrainingData,
    text: Tensor,
    recipe: RetrievalRecipe,
    build_index: BuildIndex,
    num_candidates: int,
    stage1_config: Mapping[str, Any],
    run: Run,
    destination: Destination,
) -> tuple[Path, Curves]:
    """Train the two-tower ensemble and write a bundle that serves stage 1 alone.

    ``latest`` stays where it is, since nothing has been evaluated yet.

    Args:
        text: float32 [N + 1, T]. num_candidates: how many candidates stage 2 will be given.
        stage1_config: what a later stage 2 needs to build ``recipe`` and ``build_index`` again.
    """
    attributes = torch.from_numpy(data.catalog.attributes)
    run.phases.start(expected_time.SEARCH)
    found = search(recipe, data.train, text, attributes, run, data.split.name)
    recipe = found.recipe
    likely = expected_time.LIKELY_SHARE_OF_EPOCHS * recipe.epochs
    run.phases.scale(expected_time.FITTED, found.epochs / likely)
    run.phases.start(expected_time.FITS)
    refit, without_newcomers = (
        partial(
            fit_two_tower,
            found.recipe,
            found.epochs,
            text=text,
            attributes=attributes,
            run=run.apart(name),
            counting=found.counting,
        )
        for name in ("refit", "new_users")
    )
    calls: list[Callable[[], Any]] = [
        partial(refit, data.train),
        partial(
            fit_new_users,
            data.train,
            len(data.items),
            without_newcomers,
            recipe.max_history,
            recipe.seed,
        ),
    ]
    two_tower, new_users = run.workers.results(calls)
    log.info("new users: %s", new_users)
    retriever = build_retriever(two_tower, data.train, build_index, recipe.max_history)
    bundle = save_artifact(
        destination.root,
        destination.name,
        manifest={
            **destination.manifest,
            "data_fingerprint": data.fingerprint,
            "towers": list(recipe.towers),
            "epochs": found.epochs,
            "settled": found.recipe.settings,
            "num_candidates": num_candidates,
            "max_query_history": recipe.max_history,
            "user_attributes": data.user_attributes,
            "item_attributes": data.catalog.attribute_names,
            "stage1": dict(stage1_config),
            "new_users": new_users.to_manifest(),
            "cross_encoder": None,
            **event_kinds(data),
        },
        **stored_rows(data),
        text=text,
        attributes=attributes,
        two_tower=two_tower,
        index=retriever.index,
        latest=False,
    )
    return bundle, found.curves


def stage2_lists(
    data: TrainingData,
    stage1_bundle: Path,
    retrieval: RetrievalRecipe,
    build_index: BuildIndex,
    reranking: RerankingRecipe,
    num_folds: int,
    run: Run,
) -> list[CandidateLists]:
    """Out-of-fold candidate lists for the stage 1 of a bundle: what any stage 2 learns from.

    ``retrieval`` must be the recipe that the bundle's stage 1 was trained by, and trains the stage
    1 of each fold.

    Raises:
        InputError: when the bundle was trained on other rows.
    """
    run.phases.start(expected_time.FOLDS)
    stage1 = load_artifact(stage1_bundle)
    check_same_data(stage1_bundle, stage1.manifest, data)
    epochs = int(stage1.manifest["epochs"])
    text, attributes = stage1.text, stage1.attributes
    reduction = TextReduction.fit(text, reranking.relation_rank)
    return out_of_fold_lists(
        data.train,
        reduction(text),
        partial(
            fold_retriever,
            recipe=retrieval.with_settings(stage1.manifest.get("settled")),
            epochs=epochs,
            counting=stage1.two_tower.counting,
            text=text,
            attributes=attributes,
            build_index=build_index,
            run=run.apart(),
        ),
        num_folds=num_folds,
        num_candidates=stage1.num_candidates,
        max_history=reranking.max_history,
        seed=reranking.seed,
        in_order=data.split.name in TEMPORAL,
        max_lists=reranking.max_lists,
        workers=run.workers,
        done=run.phases.part,
    )


def train_stage2(
    data: TrainingData,
    stage1_bundle: Path,
    lists: Sequence[CandidateLists],
    reranking: RerankingRecipe,
    run: Run,
    destination: Destination,
    serve: str = AUTO,
) -> tuple[Path, Curves]:
    """Train the cross-encoder on the lists of ``stage2_lists``, and write a bundle of both stages.

    The served stage 1 is taken over as it is, and ``latest`` stays where it is.

    Args:
        serve: ``stage1`` or ``stage2``, whose order is served; ``auto`` serves stage 2 where it
            pays, see ``ListGain``.
    """
    run.phases.start(expected_time.STAGE2)
    stage1 = load_artifact(stage1_bundle)
    text, attributes = stage1.text, stage1.attributes
    reduction = TextReduction.fit(text, reranking.relation_rank)
    stage2, curves, gain = fit_stage2(reranking, lists, data.train, reduction, text, run)
    bundle = save_artifact(
        destination.root,
        destination.name,
        manifest={
            **destination.manifest,
            **{key: stage1.manifest[key] for key in _KEPT},
            "settled": stage1.manifest.get("settled"),
            "item_attributes": stage1.attribute_names,
            "cross_encoder": encoder_config(reranking, data.train),
            "max_history": reranking.max_history,
            "relation_rank": reranking.relation_rank,
            "stage1_version": stage1.version,
            "serve": ("stage2" if gain.pays else "stage1") if serve == AUTO else serve,
            "stage2_gain": {"ndcg@10": gain.top._asdict(), "ndcg@100": gain.depth._asdict()},
            **event_kinds(data),
        },
        **stored_rows(data),
        text=text,
        attributes=attributes,
        two_tower=stage1.two_tower,
        index=stage1.index,
        stage2=stage2,
        latest=False,
    )
    return bundle, curves


def stored_rows(data: TrainingData) -> dict[str, Any]:
    """What a bundle holds of the data besides models, as arguments of ``save_artifact``."""
    return {
        "users": data.users,
        "items": data.items,
        "user_frame": align_users(data.user_frame, data.users),
        "item_frame": data.catalog.items,
        "histories": data.train,
        "dismissed": data.dismissed,
    }


def event_kinds(data: TrainingData) -> dict[str, Any]:
    """What the manifest says of the types of events, and of what they count."""
    weights = data.event_weights
    return {
        "event_types": list(data.event_types),
        "event_weights": None if weights is None else dict(weights),
        "count_repeats": data.count_repeats,
        "half_life_days": data.half_life_days,
    }


def check_same_data(bundle: Path, manifest: Mapping[str, Any], data: TrainingData) -> None:
    """Raise InputError unless the bundle's stage 1 was trained on exactly these rows."""
    if manifest["data_fingerprint"] != data.fingerprint:
        trained = f"data={manifest.get('dataset')}, split {manifest.get('split')}"
        raise InputError(
            f"the rows that stage 1 in {bundle} was trained on ({trained})",
            f"other rows (data={data.name}, split {data.split.name})",
            "give stage=2 the data options that stage=1 had, or train again: "
            "python train.py stage=all",
        )


def find_stage1(bundle: Path) -> tuple[Path, Mapping[str, Any]]:
    """The folder of a bundle, links followed once, and its manifest.

    Raises:
        InputError: naming the command that makes one.
    """
    if not (bundle / MANIFEST_FILE).is_file():
        raise InputError(
            f"a stage-1 bundle in {bundle}",
            "none",
            "run first: python train.py stage=1 (or do both: stage=all)",
        )
    folder = bundle.resolve()
    manifest = read_manifest(folder)
    missing = [key for key in _KEPT if key not in manifest]
    if missing:
        raise InputError(
            f"{', '.join(missing)} in the manifest of {bundle}, as train.py writes them",
            "none",
            "run first: python train.py stage=1 (or do both: stage=all)",
        )
    return folder, manifest


def evaluate_bundle(
    bundle: Path,
    data: TrainingData,
    fit_baselines: Callable[[Histories, int], dict[str, Baseline]],
    seed: int,
    champion: Recommender | None = None,
    phases: Phases | None = None,
) -> tuple[dict[str, Any], Recommender]:
    """The content of metrics.json, from the bundle as it lies on disk and is served.

    Args:
        champion: what is served now, to be compared with.

    The only place where test rows count; the report also shows some of them in its examples.
    """
    phases = phases or Phases()
    phases.start(expected_time.EVALUATION)
    recommender = Recommender.load(bundle, stage2=True)
    targets = Targets.from_frame(data.split.test, data.users, data.items)
    stages = {"stage1": False} | ({"stage2": True} if recommender.reranker else {})
    rankings = {
        stage: served_ranking(recommender, data, targets, rerank=rerank)
        for stage, rerank in stages.items()
    }
    phases.start(expected_time.BASELINES)
    for name, baseline in fit_baselines(data.train, len(data.items)).items():
        ranked = rank(baseline, data.train, targets.user_idx, EVALUATION_K, seed)
        rankings[name] = torch.from_numpy(np.ascontiguousarray(ranked))
    if champion is not None:
        rankings[CHAMPION] = champion_ranking(
            champion, recommender.artifact, data, targets, EVALUATION_K
        )
    metrics = evaluate(
        rankings,
        targets,
        train=data.train,
        num_items=len(data.items),
        dataset=data.name,
        split=data.split.name,
        protocol=data.split.protocol,
        seed=seed,
        served=str(
            recommender.manifest.get("serve", "stage2" if stages.get("stage2") else "stage1")
        ),
        kinds=_strongest_alone(data),
    )
    return metrics, recommender


def _strongest_alone(data: TrainingData) -> dict[str, Tensor]:
    """The held-out events of the type that counts most, where types differ: bool [n] by name."""
    name = strongest_type(data.event_weights)
    if name is None or TYPE not in data.split.test:
        return {}
    return {name: torch.from_numpy((data.split.test[TYPE] == name).to_numpy(bool, copy=True))}


def served_ranking(
    recommender: Recommender, data: TrainingData, targets: Targets, *, rerank: bool
) -> Tensor:
    """What the service answers to each user of ``targets``: int64 [U, EVALUATION_K], 0 = none."""
    requests = [Request(top_k=EVALUATION_K, user_id=user) for user in _user_ids(targets, data)]
    answers = recommender.recommend(requests, rerank=rerank)
    return ranked_tensor([answer.item_ids for answer in answers], data.items, EVALUATION_K)


def _user_ids(targets: Targets, data: TrainingData) -> list[ExternalId | None]:
    """The users' own ids; None, which the service takes for an unknown user, for unknown ones."""
    known = targets.user_idx > 0
    ids: list[ExternalId | None] = [None] * len(known)
    decoded = data.users.decode(targets.user_idx[known])
    for row, user_id in zip(np.flatnonzero(known), decoded, strict=True):
        ids[row] = user_id
    return ids
