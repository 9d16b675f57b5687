"""One unit of the benchmark of data sets: one set, protocol and seed, in a process of its own."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import Tensor

from benchmarks.datasets_registry import GIVEN, SETS, PublicSet, split_overrides
from benchmarks.harness import Setting, load_setting, without_test_rows
from benchmarks.lambdamart import LambdaMart, fit_lambdamart, rank_as_served
from benchmarks.quality_unit import Costs
from benchmarks.runs import save_result
from benchmarks.training import candidate_lists, write_stage1, write_stage2
from recsys.baseline_search import MAX_TRIALS, Chosen, tune
from recsys.baselines import fit_all, rank
from recsys.data import files
from recsys.data.prepare import TrainingData, prepare
from recsys.evaluation import Targets
from recsys.metrics import hit_matrix, ndcg_at_k, recall_at_k
from recsys.recommender import Recommender
from recsys.results import STAGES
from recsys.schema import Dataset, Split
from recsys.training.catalogue_size import exceeds
from recsys.training.composed_config import baseline_fits, hold_out, load_data
from recsys.training.pipeline import EVALUATION_K, served_ranking

log = logging.getLogger(__name__)

SMALL = ("experiment=quick",)
SMALL_TRIALS = 3
_FUNCTIONS = {"recall": recall_at_k, "ndcg": ndcg_at_k}


@dataclass(frozen=True)
class Wanted:
    """What to measure. folder: of the set's files. small: seconds instead of minutes, for tests.

    extra: overrides of the configuration, for experiments; none, and the defaults are measured.
    stage2, lambdamart: whether it is trained, too; the latter learns from the former's lists.
    """

    name: str
    protocol: str
    seed: int
    folder: Path
    small: bool = False
    extra: Sequence[str] = ()
    stage2: bool = True
    lambdamart: bool = False

    @property
    def title(self) -> str:
        """``office-leave_last-0``."""
        return f"{self.name}-{self.protocol}-{self.seed}"


def measure(wanted: Wanted, output: Path) -> None:
    """Train, tune the baselines, rank, and write ``result.json`` and ``per_user.npz``.

    ``per_user.npz``: system -> float [U, M], a row per user with held-out rows, in one order for
    all systems; a column per metric as named in ``result.json``.
    """
    public = SETS[wanted.name]
    costs = Costs()
    with costs.of("texts"):
        setting, configuration = configured(wanted, public)
    held_out = setting.data.split.test
    data = without_test_rows(setting.data)
    # Whatever trains or is tuned from here on is handed no held-out row.
    assert not len(data.split.test)
    assert len(held_out)
    bundle, lambdamart = train(setting, data, wanted, output, costs)
    num_items = len(data.items)
    with costs.of("baselines"):
        remaining, validation = hold_out(setting.cfg, data.split.name)(data.train)
        trials = SMALL_TRIALS if wanted.small else MAX_TRIALS
        chosen = tune(
            baseline_fits(setting.cfg.baselines), remaining, validation, num_items, trials
        )
        fitted = fit_all({name: one.fit for name, one in chosen.items()}, data.train, num_items)

    # Training is over: the held-out rows are looked at from here on.
    targets = Targets.from_frame(held_out, data.users, data.items)
    recommender = Recommender.load(bundle, stage2=True)
    rankings = {
        name: torch.from_numpy(
            np.ascontiguousarray(
                rank(baseline, data.train, targets.user_idx, EVALUATION_K, wanted.seed)
            )
        )
        for name, baseline in fitted.items()
    }
    if lambdamart is not None:
        users = targets.user_idx
        rankings["lambdamart"] = rank_as_served(lambdamart, recommender, users, EVALUATION_K)
    for stage in STAGES[: 1 + wanted.stage2]:
        rankings[stage] = served_ranking(recommender, data, targets, rerank=stage == "stage2")
    per_user = {
        system: per_user_metrics(ranked, targets, num_items, public.metrics)
        for system, ranked in rankings.items()
    }
    content = {
        "protocol": data.split.protocol,
        "seed": wanted.seed,
        "data": setting.data.content_hash(),
        "n_users": len(targets),
        "rows": {"users": len(data.users), "items": num_items, "train": len(data.train)},
        "configuration": configuration,
        "epochs": recommender.manifest["epochs"],
        "metrics": list(public.metrics),
        "baselines": {name: described(one) for name, one in chosen.items()},
        "seconds": costs.seconds,
        "cpu_seconds": costs.cpu_seconds,
        "peak_gb": costs.peak_gb,
    }
    save_result(output, content, per_user)


def configured(wanted: Wanted, public: PublicSet) -> tuple[Setting, list[str]]:
    """The product's defaults for the set; and what had to be told beside where its files are.

    A catalogue too large for the closed form takes ``retrieval=large_catalog``, as in ``train.py``.
    """
    own = (*public.overrides(wanted.folder), *split_overrides(wanted.protocol, wanted.seed))
    # Without texts train.py takes this by itself.
    own = (*own, "baselines=tuned", *(["text=none"] if public.texts == "none" else []))
    told = [*(SMALL if wanted.small else ()), *wanted.extra]
    load = partial(load_given, public=public, folder=wanted.folder)
    loader = load if wanted.protocol == GIVEN else load_data
    setting = load_setting([*own, *told], loader)
    if exceeds(setting.cfg.retrieval, len(setting.data.items)):
        log.info("%s items: retrieval=large_catalog", f"{len(setting.data.items):,}")
        # First, so that experiment=quick changes the epochs of this one.
        told = ["retrieval=large_catalog", *told]
        setting = load_setting([*own, *told], loader)
    return setting, told


def load_given(cfg: DictConfig, public: PublicSet, folder: Path) -> TrainingData:
    """A set whose test rows lie in a file of their own: all rows of the other train."""
    assert public.test is not None
    train, test = (
        files.load(folder / name, None, columns=public.columns).interactions
        for name in (public.interactions, public.test)
    )
    rows = pd.concat([train, test], ignore_index=True)
    catalog = rows[["item_id"]].drop_duplicates(ignore_index=True)
    catalog = catalog.assign(title=catalog["item_id"].astype("str"))
    protocol = f"given: the {len(test):,} rows in {public.test} are held out, as published"
    split = Split(GIVEN, protocol, train, test)
    return prepare(Dataset(str(cfg.data.name), rows, catalog), split)


def train(
    setting: Setting, data: TrainingData, wanted: Wanted, folder: Path, costs: Costs
) -> tuple[Path, LambdaMart | None]:
    """A bundle of the stages that are wanted below ``folder``, each step of it measured.

    And trees that have learned from stage 2's lists, if those are wanted.
    """
    recipe = setting.recipe(wanted.seed, stage2=wanted.stage2)
    pl.seed_everything(wanted.seed, verbose=False)
    with costs.of("stage1"):
        stage1 = write_stage1(recipe, data, setting.text, folder)
    if not wanted.stage2:
        return stage1, None
    with costs.of("lists"):
        lists = candidate_lists(recipe, data, stage1, folder)
    with costs.of("stage2"):
        bundle = write_stage2(recipe, data, stage1, lists, folder)
    if not wanted.lambdamart:
        return bundle, None
    with costs.of("lambdamart"):
        return bundle, fit_lambdamart(lists, wanted.seed)


def per_user_metrics(
    ranked: Tensor, targets: Targets, num_items: int, metrics: Sequence[str]
) -> np.ndarray:
    """float64 [U, M] of lists int64 [U, K], row u for row u of ``targets``."""
    hits = hit_matrix(ranked, targets.rows, targets.items, num_items)
    columns = []
    for metric in metrics:
        name, k = metric.split("@")
        columns.append(_FUNCTIONS[name](hits, targets.num_relevant, int(k)))
    return torch.stack(columns, dim=1).numpy()


def described(chosen: Chosen) -> Mapping[str, Any]:
    """What was chosen, as it goes to the file of results."""
    return {
        "settings": dict(chosen.settings),
        "validation": chosen.value,
        "trials": chosen.trials,
        "seconds": chosen.seconds,
    }
