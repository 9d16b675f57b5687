"""Items that nobody has interacted with: how well does content alone place them?

A random tenth of the items is held out of training altogether and stays in the catalogue with its
text and attributes. Relevant are each user's interactions with those items, ranked (a) among the
cold items and (b) within the whole catalogue, the user's training items left out. A second table
has what places that lists reserve for cold items bring these, and what they cost all others.

    python benchmarks/cold_items.py --draws 3 --output cold_items.json
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from rich.table import Table
from torch import Tensor

from benchmarks.cold_item_draw import ColdItems, draw_cold_items, hold_out_items
from benchmarks.content_rankers import (
    REGULARIZATIONS,
    Among,
    Features,
    FitFactors,
    Random,
    fit_similarity,
    genres_and_year,
    map_factors,
)
from benchmarks.harness import (
    Setting,
    argument_parser,
    cell,
    mean_metrics,
    parse_arguments,
    plain_table,
    present,
    run_draws,
)
from benchmarks.reserved_places import evaluate_places, places_table, user_ids, warm_targets
from benchmarks.runs import counted
from benchmarks.training import TrainRecommender, train_recommender
from recsys.baselines import Baseline, Popularity, rank
from recsys.data.prepare import TrainingData
from recsys.evaluation import ranked_tensor
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.results import column_name

log = logging.getLogger(__name__)

K = 20
METRICS = (f"recall@{K}", f"ndcg@{K}")
NUM_VALIDATION_DRAWS = 3

Figures = dict[str, dict[str, float]]
"""``{"cold": {metric: value}, "catalogue": {metric: value}}``: by what was ranked."""


def evaluate_ranker(ranker: Baseline, draw: ColdItems, seed: int) -> Figures:
    """A baseline's figures; ``seed`` breaks ties."""
    figures = {}
    for candidates, chosen in (("cold", Among(ranker, draw.cold)), ("catalogue", ranker)):
        ranked = rank(chosen, draw.data.train, draw.targets.user_idx, K, seed)
        figures[candidates] = mean_metrics(
            torch.from_numpy(ranked), draw.targets, len(draw.data.items), METRICS
        )
    return figures


def evaluate_recommender(recommender: Recommender, draw: ColdItems, *, rerank: bool) -> Figures:
    """The figures of what the service answers; warm items are left out by ``Request.exclude``."""
    items = draw.data.items
    warm = items.decode(np.flatnonzero(~draw.cold)[1:])
    figures = {}
    for candidates, exclude in (("cold", warm), ("catalogue", [])):
        requests = [
            Request(top_k=K, user_id=user_id, exclude=exclude)
            for user_id in user_ids(draw, draw.targets)
        ]
        lists = [answer.item_ids for answer in recommender.recommend(requests, rerank=rerank)]
        ranked = ranked_tensor(lists, items, K)
        figures[candidates] = mean_metrics(ranked, draw.targets, len(items), METRICS)
    return figures


def choose_regularizations(
    data: TrainingData,
    feature_sets: Mapping[str, Sequence[Features]],
    fit_factors: FitFactors,
    seed: int,
) -> dict[str, float]:
    """Each ridge map's penalty, by recall among items that are drawn cold from ``data`` in turn.

    The cold items that are reported on have no training rows in ``data``, so are never drawn here.
    """
    seen = np.flatnonzero(data.train.item_counts(len(data.items)))
    recalls = {name: np.zeros(len(REGULARIZATIONS)) for name in feature_sets}
    for number in range(NUM_VALIDATION_DRAWS):
        inner = hold_out_items(data, seen, seed + number)
        factors = fit_factors(inner.data.train, len(data.items))
        for name, blocks in feature_sets.items():
            maps = map_factors(inner.data.train, factors, blocks, REGULARIZATIONS)
            recalls[name] += [evaluate_ranker(m, inner, seed)["cold"][METRICS[0]] for m in maps]
    return {name: REGULARIZATIONS[int(sums.argmax())] for name, sums in recalls.items()}


def measure_baselines(
    draw: ColdItems, text: Features, fit_factors: FitFactors, seed: int
) -> dict[str, Any]:
    """``{"systems": {name: figures}, "regularization": {name: penalty}}``."""
    data = draw.data
    train, num_items = data.train, len(data.items)
    genres, with_year = genres_and_year(data.catalog)
    feature_sets = {
        "ridge, genres and year": [with_year],
        "ridge, text": [text],
        "ridge, genres, year and text": [with_year, text],
    }
    log.info("ridge maps: choosing penalties on warm items")
    penalties = choose_regularizations(data, feature_sets, fit_factors, seed)
    log.info("ridge maps: fitting with penalties %s", penalties)
    factors = fit_factors(train, num_items)
    true_counts = train.item_counts(num_items) + np.bincount(
        draw.targets.items.numpy(), minlength=num_items + 1
    )
    rankers: dict[str, Baseline] = {
        "random": Random(num_items, seed),
        "genre kNN": fit_similarity(train, genres),
        "text kNN": fit_similarity(train, text),
        **{
            name: map_factors(train, factors, blocks, [penalties[name]])[0]
            for name, blocks in feature_sets.items()
        },
        "oracle: true popularity": Popularity(true_counts.astype(np.float32)),
    }
    systems = {name: evaluate_ranker(ranker, draw, seed) for name, ranker in rankers.items()}
    return {"systems": systems, "regularization": penalties}


def measure_two_tower(
    draw: ColdItems,
    text: Tensor,
    train: TrainRecommender,
    *,
    stage2: bool,
    trained: Callable[[str, Recommender], None] | None = None,
) -> dict[str, Figures]:
    """The product, and the same with parts of its content blanked out, by name.

    Args:
        trained: told of each, and of what its name ends with: nothing for the product itself.
    """
    data = draw.data
    blank = replace(data.catalog, attributes=np.zeros_like(data.catalog.attributes))
    variants = {
        "": (data, text),
        ", without text": (data, torch.zeros_like(text)),
        ", without content": (replace(data, catalog=blank), torch.zeros_like(text)),
    }
    systems = {}
    for suffix, (variant, vectors) in variants.items():
        log.info("two-tower%s: training", suffix)
        recommender = train(variant, vectors)
        if trained is not None:
            trained(suffix, recommender)
        systems[f"two-tower{suffix}"] = evaluate_recommender(recommender, draw, rerank=False)
        if stage2:
            reranked = evaluate_recommender(recommender, draw, rerank=True)
            systems[f"both stages{suffix}"] = reranked
    return systems


def measure(setting: Setting, seed: int, *, stage2: bool) -> dict[str, Any]:
    """All systems on one draw."""
    draw = draw_cold_items(setting.data, seed)
    log.info("%s; %d users with cold items", draw.data.split.protocol, len(draw.targets))
    fit_als = instantiate(setting.cfg.baselines.als, seed=seed)
    content = measure_baselines(draw, setting.text.numpy(), fit_als, seed)
    train = partial(train_recommender, setting.recipe(seed, stage2=stage2))
    warm, places = warm_targets(setting.data, draw), {}

    def reserve(suffix: str, recommender: Recommender) -> None:
        if not suffix:
            for name, rerank in {"two-tower": False, "both stages": True}.items():
                if stage2 or not rerank:
                    places[name] = evaluate_places(recommender, draw, warm, rerank=rerank)

    content["systems"] |= measure_two_tower(
        draw, setting.text, train, stage2=stage2, trained=reserve
    )
    counts = {"num_cold": int(draw.cold.sum()), "num_users": len(draw.targets)}
    return {**counts, **content, "places": places}


def results_table(content: Mapping[str, Any]) -> Table:
    """One row per system: mean±sd over draws."""
    draws, mean = counted(len(content["draws"]), "draw"), content["mean"]
    table = plain_table(
        f"{content['dataset']}: {mean['num_cold']:.0f} cold items, mean±sd of {draws}",
        "ranked among the cold items, and within the whole catalogue",
    )
    table.add_column("system", no_wrap=True)
    for candidates in ("cold", "catalogue"):
        for metric in METRICS:
            table.add_column(f"{candidates}\n{column_name(metric)}", justify="right", no_wrap=True)
    for system in mean["systems"]:
        cells = [
            cell(content, "systems", system, candidates, metric)
            for candidates in ("cold", "catalogue")
            for metric in METRICS
        ]
        table.add_row(system, *cells)
    return table


def main() -> None:
    arguments = parse_arguments(argument_parser("Rank items that have no interactions."))
    content = run_draws(arguments, partial(measure, stage2=arguments.stage2))
    content["protocol"] = " ".join((__doc__ or "").split("\n\n")[1].split())
    tables = [results_table(content), places_table(content)]
    present("Items without any training row", tables, content, arguments.output)


if __name__ == "__main__":
    main()
