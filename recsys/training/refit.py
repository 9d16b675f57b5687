"""What is served has learned from every row: fitted again once the settings have been evaluated."""

import logging
from pathlib import Path

import numpy as np

from recsys.artifact import Artifact, Stage2, load_artifact, save_artifact
from recsys.data.prepare import TrainingData
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.training.expected_time import REFIT
from recsys.training.folds import build_extractor
from recsys.training.pipeline import Destination, event_kinds, stored_rows
from recsys.training.retrieval_recipe import RetrievalRecipe
from recsys.training.stage1 import BuildIndex, Run, build_retriever, fit_two_tower

log = logging.getLogger(__name__)

AGREEMENT_K, _MOST_COMPARED, _SEED = 10, 500, 0
LEAST_AGREEMENT = 0.4
"""Below it something is amiss: two seeds of one recipe share far more."""

_KEPT = (
    *("towers", "epochs", "num_candidates", "max_query_history", "stage1", "text", "new_users"),
    *("item_attributes", "cross_encoder", "max_history", "relation_rank"),
    *("serve", "stage2_gain", "settled"),
)
"""What the manifest takes over from that of the evaluated bundle."""


def refit(
    evaluated: Path,
    data: TrainingData,
    recipe: RetrievalRecipe,
    build_index: BuildIndex,
    run: Run,
    destination: Destination,
) -> Path:
    """Write a bundle like an evaluated one, of all rows.

    Stage 1 is trained anew, for the epochs that validation chose. Stage 2 keeps its network, which
    has learned from out-of-fold lists how signals tell what is relevant; the signals themselves,
    and the histories, are of all rows.

    Args:
        evaluated: the bundle whose table is reported. data: all rows, as of ``prepare_all``.
        recipe: of the bundle's stage 1.
    """
    run.phases.start(REFIT)
    before = load_artifact(evaluated)
    text, attributes = before.text, before.attributes
    two_tower = fit_two_tower(
        recipe.with_settings(before.manifest.get("settled")),
        int(before.manifest["epochs"]),
        data.train,
        text,
        attributes,
        run.apart("all_rows"),
        counting=before.two_tower.counting,
    )
    retriever = build_retriever(two_tower, data.train, build_index, recipe.max_history)
    return save_artifact(
        destination.root,
        destination.name,
        manifest={
            **destination.manifest,
            **{key: before.manifest[key] for key in _KEPT if key in before.manifest},
            "data_fingerprint": data.fingerprint,
            "user_attributes": data.user_attributes,
            **event_kinds(data),
            "evaluated": {"version": before.version, "rows": len(before.histories)},
        },
        **stored_rows(data),
        text=text,
        attributes=attributes,
        two_tower=two_tower,
        index=retriever.index,
        stage2=_stage2(before, data),
        latest=False,
    )


def _stage2(before: Artifact, data: TrainingData) -> Stage2 | None:
    stage2 = before.stage2
    if stage2 is None:
        return None
    reduced = stage2.reduction(before.text)
    extractor = build_extractor(data.train, reduced, int(before.manifest["max_history"]))
    return Stage2(stage2.cross_encoder, extractor, stage2.reduction)


def agreement(evaluated: Recommender, served: Recommender) -> float:
    """The share of items that both recommend for the same histories, of each list of 10.

    Histories are those that the evaluated one knows, so none tells more to one than to the other.
    """
    users = np.random.default_rng(_SEED).permutation(evaluated.users.ids)[:_MOST_COMPARED].tolist()
    batch = evaluated.histories.batch([Request(AGREEMENT_K, user_id=user) for user in users])
    requests = [
        Request(AGREEMENT_K, history=evaluated.items.decode(items[items > 0].numpy()))
        for items in batch.item_idx
    ]
    both = (one.recommend(requests) for one in (evaluated, served))
    shared = [
        len(set(one.item_ids) & set(other.item_ids)) / max(len(one.item_ids), 1)
        for one, other in zip(*both, strict=True)
    ]
    return round(float(np.mean(shared)), 8)


def check_agreement(evaluated: Recommender, served: Recommender) -> float:
    """``agreement``; the log tells it, and warns where it is little."""
    share = agreement(evaluated, served)
    level = logging.INFO if share >= LEAST_AGREEMENT else logging.WARNING
    log.log(
        level,
        "served model: fitted on all %d rows; for the same histories %.1f of %d items are those "
        "of the evaluated model%s",
        *(len(served.artifact.histories), AGREEMENT_K * share, AGREEMENT_K),
        "" if share >= LEAST_AGREEMENT else ": far fewer than usual, look at both before serving",
    )
    return share
