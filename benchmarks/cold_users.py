"""Users unseen in training: how good are lists after 0, 1, 3, 5, 10 and 20 interactions?

A random tenth of the users is held out of training altogether. The first k interactions of each
come as an anonymous history at request time; relevant are those after the first 20, the same for
every k. The first 20 are never candidates, so that neither are the candidates another set for
another k. It is done by time, and once more in a random order: on MovieLens-100K a user's first few
ratings are no fair sample of the rest, and mislead every method.

    python benchmarks/cold_users.py --draws 3 --output cold_users.json
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.cold_user_draw import NUM_GIVEN, ColdUsers, draw_cold_users
from benchmarks.harness import (
    Setting,
    argument_parser,
    mean_metrics,
    parse_arguments,
    plain_table,
    present,
    run_draws,
)
from benchmarks.runs import counted
from benchmarks.training import train_recommender
from recsys.baselines import Baseline, ItemWeights, Popularity, fit_popularity, rank
from recsys.data.histories import Histories
from recsys.evaluation import ranked_tensor
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.results import column_name, label

log = logging.getLogger(__name__)

HISTORY_LENGTHS = (0, 1, 3, 5, 10, NUM_GIVEN)
METRICS = ("recall@10", "ndcg@10", "recall@100")
K = 100

ORDERS = ("by time", "in random order")

Curve = dict[str, dict[str, float]]
"""``{"0": {metric: value}, "1": …}``: by the length of the history; strings, as JSON has them."""


@dataclass(frozen=True)
class FoldIn:
    """EASE for users it was not fitted on: their history vector times its weights.

    Without a history it has nothing to go by, and answers with popularity as the service does.

    ease: ``matrix`` holds the unseen users' histories.
    """

    ease: ItemWeights
    popularity: Popularity

    def scores(self, user_idx: NDArray[np.int64]) -> NDArray[np.float32]:
        empty = np.diff(self.ease.matrix.indptr)[user_idx] == 0
        scores = self.ease.scores(user_idx)
        scores[empty] = self.popularity.scores(user_idx[empty])
        return scores


def fold_in(fitted: ItemWeights, histories: Histories, popularity: Popularity) -> FoldIn:
    """``fitted``'s weights over the histories of other users."""
    matrix = histories.matrix(len(fitted.weights) - 1)
    return FoldIn(ItemWeights(matrix, fitted.weights), popularity)


def measure_baselines(draw: ColdUsers, ease: ItemWeights, seed: int) -> dict[str, Curve]:
    """Curves of popularity and EASE, by name; ``ease`` is fitted to ``draw.data.train``."""
    popularity = fit_popularity(draw.data.train, len(draw.data.items))
    masked = draw.given(NUM_GIVEN)

    def figures(ranker: Baseline) -> dict[str, float]:
        ranked = torch.from_numpy(rank(ranker, masked, draw.targets.user_idx, K, seed))
        return mean_metrics(ranked, draw.targets, len(draw.data.items), METRICS)

    return {
        "popularity": {str(length): figures(popularity) for length in HISTORY_LENGTHS},
        "ease": {
            str(length): figures(fold_in(ease, draw.given(length), popularity))
            for length in HISTORY_LENGTHS
        },
    }


def measure_recommender(recommender: Recommender, draw: ColdUsers, *, rerank: bool) -> Curve:
    """The curve of what the service answers to anonymous histories."""
    items = draw.data.items
    excluded = _item_ids(draw, NUM_GIVEN)
    curve = {}
    for length in HISTORY_LENGTHS:
        requests = [
            Request(top_k=K, history=history, exclude=exclude)
            for history, exclude in zip(_item_ids(draw, length), excluded, strict=True)
        ]
        lists = [answer.item_ids for answer in recommender.recommend(requests, rerank=rerank)]
        ranked = ranked_tensor(lists, items, K)
        curve[str(length)] = mean_metrics(ranked, draw.targets, len(items), METRICS)
    return curve


def _item_ids(draw: ColdUsers, length: int) -> list[list[Any]]:
    """External ids of each unseen user's first ``length`` items, oldest first."""
    given = draw.given(length)
    item_ids = draw.data.items.decode(given.item_idx)
    bounds = zip(given.offsets[1:-1], given.offsets[2:], strict=True)
    return [item_ids[start:end] for start, end in bounds]


def measure_systems(
    draw: ColdUsers, ease: ItemWeights, recommender: Recommender, seed: int, *, stage2: bool
) -> dict[str, Curve]:
    """The curves of all systems; ``ease`` and ``recommender`` are trained on ``draw.data``."""
    curves = measure_baselines(draw, ease, seed)
    curves["stage1"] = measure_recommender(recommender, draw, rerank=False)
    if stage2:
        curves["stage2"] = measure_recommender(recommender, draw, rerank=True)
    return curves


def measure(setting: Setting, seed: int, *, stage2: bool) -> dict[str, Any]:
    """All systems on one draw: ``{"by time": {system: curve}, "in random order": …}``."""
    draw = draw_cold_users(setting.data, seed)
    log.info("%s: training", draw.data.split.protocol)
    ease = instantiate(setting.cfg.baselines.ease)(draw.data.train, len(draw.data.items))
    recommender = train_recommender(setting.recipe(seed, stage2=stage2), draw.data, setting.text)
    orders = {ORDERS[0]: draw, ORDERS[1]: draw.shuffled(seed)}
    return {"num_users": len(draw.targets)} | {
        order: measure_systems(ordered, ease, recommender, seed, stage2=stage2)
        for order, ordered in orders.items()
    }


def results_table(content: Mapping[str, Any], order: str) -> Table:
    """One row per system and metric, one column per length of the history."""
    draws, mean = counted(len(content["draws"]), "draw"), content["mean"]
    table = plain_table(
        f"{content['dataset']}: {mean['num_users']:.0f} unseen users, mean of {draws}",
        f"columns: number of interactions that are given, {order}",
    )
    table.add_column("system", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    for length in HISTORY_LENGTHS:
        table.add_column(str(length), justify="right", no_wrap=True)
    for metric in METRICS:
        for system in mean[order]:
            curve = mean[order][system].values()
            table.add_row(
                label(system), column_name(metric), *[f"{figures[metric]:.3f}" for figures in curve]
            )
        table.add_section()
    return table


def main() -> None:
    arguments = parse_arguments(argument_parser("Recommend to users that training has not seen."))
    content = run_draws(arguments, partial(measure, stage2=arguments.stage2))
    content["protocol"] = " ".join((__doc__ or "").split("\n\n")[1].split())
    present(
        "Users without any training row",
        [results_table(content, order) for order in ORDERS],
        content,
        arguments.output,
    )


if __name__ == "__main__":
    main()
