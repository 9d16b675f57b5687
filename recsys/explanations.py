"""Why an item is in a list: how much its score owes to each event of the history.

Measured on the model, by leaving out one event at a time (occlusion; Zeiler and Fergus 2014, for
recommenders Yang et al. 2018) while the candidates stay the same.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.recommender import Recommender
from recsys.request import Request
from recsys.schema import ExternalId, HistoryBatch, RankedList

MAX_EVENTS = 100
"""Of the latest so many events each is left out in turn."""
_NUM_REASONS = 3
# Bounds memory, which grows with histories x candidates x events.
_ROWS_AT_A_TIME = 16


@dataclass(frozen=True)
class Reason:
    """An item of the history, and by how much the score would be lower without it."""

    item_id: ExternalId
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """Of one item of a list.

    retrieved_rank: its place among stage 1's candidates, from 1; None where it is not one of them.
    because: what contributed most, most first; nothing that did not raise the score.
    """

    item_id: ExternalId
    retrieved_rank: int | None
    because: Sequence[Reason]


@torch.inference_mode()
def explain(
    recommender: Recommender,
    request: Request,
    ranked: RankedList,
    num_reasons: int = _NUM_REASONS,
    until: float = math.inf,
) -> list[Explanation]:
    """Explanations of a list that the recommender has made for the request, in its order.

    Args:
        until: as of ``time.monotonic``; it takes little longer than that.

    Raises:
        TimeoutError: when it is not done by then.
    """
    _check_time(until)
    retrieved = recommender.retrieve([request])
    candidates = retrieved.item_idx[0][retrieved.item_idx[0] > 0]
    places = {item: rank for rank, item in enumerate(candidates.tolist(), 1)}
    wanted = recommender.items.encode(ranked.item_ids).tolist()
    history = recommender.histories.batch([request])
    contributions, events = np.zeros((0, 0), np.float32), np.zeros(0, np.int64)
    explained = [item for item in wanted if item in places]
    if ranked.source != "popular" and explained and int(history.mask.sum()):
        columns = np.array([places[item] - 1 for item in explained])
        contributions, events = _contributions(
            recommender,
            history,
            candidates,
            columns,
            reranked=ranked.source == "reranked",
            until=until,
        )
    column_of = {item: column for column, item in enumerate(explained)}
    return [
        Explanation(
            item_id,
            places.get(item),
            _reasons(recommender, events, contributions[:, column_of[item]], num_reasons)
            if len(events) and item in column_of
            else [],
        )
        for item_id, item in zip(ranked.item_ids, wanted, strict=True)
    ]


def _check_time(until: float) -> None:
    if time.monotonic() > until:
        raise TimeoutError


def _reasons(
    recommender: Recommender,
    events: NDArray[np.int64],
    contributions: NDArray[np.float32],
    number: int,
) -> list[Reason]:
    best = np.argsort(-contributions, kind="stable")[:number]
    best = best[contributions[best] > 0]
    return [
        Reason(item_id, float(contribution))
        for item_id, contribution in zip(
            recommender.items.decode(events[best]), contributions[best], strict=True
        )
    ]


def _contributions(
    recommender: Recommender,
    history: HistoryBatch,
    candidates: NDArray[np.int64],
    columns: NDArray[np.int64],
    *,
    reranked: bool,
    until: float,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Score with all events minus score without one: float32 [E, C], and the events' items [E].

    Args:
        history: [1, L]. candidates: int64 [K]. columns: int64 [C], those that are asked for.
    """
    length = int(history.mask.sum())
    first = max(0, length - MAX_EVENTS)
    left_out = torch.arange(first, length)
    variants = _without_each(history, length, left_out)
    parts = []
    for start in range(0, len(left_out), _ROWS_AT_A_TIME):
        _check_time(until)
        rows = variants.rows(slice(start, start + _ROWS_AT_A_TIME))
        parts.append(_scores(recommender, rows, candidates, reranked=reranked)[:, columns])
    complete = _scores(recommender, history, candidates, reranked=reranked)[:, columns]
    contributions: NDArray[np.float32] = (complete - torch.cat(parts)).numpy()
    events: NDArray[np.int64] = history.item_idx[0, first:length].numpy()
    return contributions, events


def _without_each(history: HistoryBatch, length: int, left_out: Tensor) -> HistoryBatch:
    """The history [1, L] without one event, for each of ``left_out`` [E]: [E, L - 1 or 1]."""
    if length == 1:
        return history._replace(
            item_idx=torch.zeros_like(history.item_idx),
            timestamps=torch.zeros_like(history.timestamps),
            mask=torch.zeros_like(history.mask),
            weights=None if history.weights is None else torch.zeros_like(history.weights),
        )
    positions = torch.arange(length - 1)
    kept = positions + (positions >= left_out[:, None])
    context = history.context.expand(len(left_out), -1)
    item_idx, timestamps, mask = (part[0][kept] for part in history[:3])
    weights = None if history.weights is None else history.weights[0][kept]
    return HistoryBatch(item_idx, timestamps, mask, context, weights)


def _scores(
    recommender: Recommender,
    history: HistoryBatch,
    candidates: NDArray[np.int64],
    *,
    reranked: bool,
) -> Tensor:
    """Of the same candidates for each history: float [B, K]."""
    queries = recommender.retriever.encode(history)
    items = torch.from_numpy(candidates).expand(len(queries), -1)
    by_tower = recommender.retriever.tower_scores(queries, items)
    if not reranked or recommender.reranker is None:
        return by_tower.sum(dim=2)
    return torch.from_numpy(recommender.reranker.scores(history, items.numpy(), by_tower))
