"""What places for new items bring these, and what they cost all others."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from benchmarks.cold_item_draw import ColdItems
from benchmarks.harness import cell, mean_metrics, plain_table
from benchmarks.runs import counted
from recsys.data.prepare import TrainingData
from recsys.evaluation import Targets
from recsys.exploration import ReservedPlaces
from recsys.new_items import NewItems
from recsys.recommender import BATCH_SIZE, Recommender
from recsys.request import Request
from recsys.results import column_name
from recsys.schema import ITEM_ID, ExternalId

PLACES = ReservedPlaces((11, 14, 17))
"""As the server has them by default."""
LENGTH = 100
METRICS = {"cold": ("recall@20",), "warm": ("recall@20", "ndcg@10", "ndcg@100")}
AS_RANKED, RESERVED, DIFFERENCE = "as ranked", "with places", "difference"

Figures = dict[str, dict[str, float]]
"""``{"cold": {metric: value}, "warm": {metric: value}}``: by what is relevant."""


def warm_targets(data: TrainingData, draw: ColdItems) -> Targets:
    """The test rows of a split that have no cold item."""
    test = data.split.test
    warm = test[~draw.cold[draw.data.items.encode(test[ITEM_ID])]]
    return Targets.from_frame(warm, draw.data.users, draw.data.items)


def user_ids(draw: ColdItems, targets: Targets) -> list[ExternalId | None]:
    """Of the users in turn; None for those without training rows, who come first."""
    known = targets.user_idx > 0
    unknown: list[ExternalId | None] = [None] * int((~known).sum())
    return unknown + list(draw.data.users.decode(targets.user_idx[known]))


def ranked_lists(
    recommender: Recommender, draw: ColdItems, targets: Targets, *, rerank: bool
) -> dict[str, Tensor]:
    """Each user's list in the whole catalogue, int64 [U, ``LENGTH``], without and with places."""
    cold = np.flatnonzero(draw.cold)
    new = NewItems(recommender.retriever, cold)
    requests = [Request(top_k=LENGTH, user_id=user_id) for user_id in user_ids(draw, targets)]
    lists = {name: np.zeros((len(requests), LENGTH), np.int64) for name in (AS_RANKED, RESERVED)}
    for start in range(0, len(requests), BATCH_SIZE):
        found = recommender.retrieve(requests[start : start + BATCH_SIZE], rerank=rerank)
        answers = recommender.rerank(found) if rerank else recommender.as_retrieved(found)
        for row, answer in enumerate(answers):
            listed = recommender.items.encode(answer.item_ids).tolist()
            # Nobody has seen any of them: no cold item has a training row.
            best = new.best(found.encoded.queries[row], LENGTH)
            filled = PLACES.filled(listed, best, new.all).items
            for name, items in ((AS_RANKED, listed), (RESERVED, filled)):
                lists[name][start + row, : len(items)] = items
    return {name: torch.from_numpy(items) for name, items in lists.items()}


def evaluate_places(
    recommender: Recommender, draw: ColdItems, warm: Targets, *, rerank: bool
) -> dict[str, Figures]:
    """Figures without and with places, and the difference."""
    found: dict[str, Figures] = {AS_RANKED: {}, RESERVED: {}, DIFFERENCE: {}}
    for kind, targets in (("cold", draw.targets), ("warm", warm)):
        lists = ranked_lists(recommender, draw, targets, rerank=rerank)
        for name, ranked in lists.items():
            figures = mean_metrics(ranked, targets, len(draw.data.items), METRICS[kind])
            found[name][kind] = figures
        found[DIFFERENCE][kind] = {
            metric: found[RESERVED][kind][metric] - found[AS_RANKED][kind][metric]
            for metric in METRICS[kind]
        }
    return found


def places_table(content: Mapping[str, Any]) -> Table:
    """Three rows per system: mean±sd over draws."""
    draws = counted(len(content["draws"]), "draw")
    table = plain_table(
        f"{content['dataset']}: places {', '.join(map(str, PLACES.places))} for the best cold "
        f"items, mean±sd of {draws}",
        "in the whole catalogue; warm: test rows with other items",
    )
    table.add_column("system", no_wrap=True)
    for kind, metrics in METRICS.items():
        for metric in metrics:
            table.add_column(f"{kind}\n{column_name(metric)}", justify="right", no_wrap=True)
    for system, rows in content["mean"]["places"].items():
        for name in rows:
            cells = [
                cell(content, "places", system, name, kind, metric)
                for kind, metrics in METRICS.items()
                for metric in metrics
            ]
            table.add_row(f"{system}, {name}", *cells)
    return table
