"""What is served now, asked on the rows that a challenger is evaluated on."""

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.artifact import Artifact
from recsys.data.prepare import TrainingData
from recsys.errors import InputError
from recsys.evaluation import Targets, ranked_tensor
from recsys.events.types import type_set
from recsys.recommender import BATCH_SIZE, Recommender
from recsys.request import NO_EVENTS, Request, UserEvents
from recsys.schema import ITEM_ID, RATING, TIMESTAMP, TYPE, USER_ID, WEIGHT, ExternalId

log = logging.getLogger(__name__)


def unseen_by(champion: Recommender, data: TrainingData) -> TrainingData:
    """The same with those held-out rows alone that the champion has not learned from.

    On the others it would be flattered by what it remembers, or harmed, since it never recommends
    what a user has had.

    Raises:
        InputError: when there are none.
    """
    test = data.split.test
    new = is_new(champion.artifact, test)
    if not new.any():
        raise InputError(
            "held-out rows that the champion has not learned from",
            f"none among {len(test):,}",
            "give rows that have come since, or compare by champion=null",
        )
    if not new.all():
        left_out = int((~new).sum())
        log.info("%d held-out rows that the champion has learned from are left out", left_out)
    split = replace(data.split, test=test[new].reset_index(drop=True))
    return replace(data, split=split)


def champion_ranking(
    champion: Recommender, challenger: Artifact, data: TrainingData, targets: Targets, k: int
) -> Tensor:
    """The champion's lists for the users of ``targets``: int64 [U, k] of the data's items.

    It is told what it would be told in service: of each user the training rows that its own log
    lacks, with their times; the popularity that comes of all of them; and the items that have come
    since, where texts are encoded alike.

    Args:
        data: as of ``unseen_by``.
    """
    champion = _with_new_items(champion, challenger)
    _count(champion, data.split.train)
    users = [None if user == 0 else data.users.ids[user - 1] for user in targets.user_idx.tolist()]
    events = _later_events(champion, data.split.train)
    lists: list[list[ExternalId]] = []
    for start in range(0, len(users), BATCH_SIZE):
        some = users[start : start + BATCH_SIZE]
        requests = [Request(k, user_id=user, events=events.get(user, NO_EVENTS)) for user in some]
        lists += [answer.item_ids for answer in champion.recommend(requests)]
    return ranked_tensor([_known(one, data) for one in lists], data.items, k)


def is_new(champion: Artifact, rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Which pairs of user and item the champion's log lacks: [n]."""
    histories, stride = champion.histories, len(champion.items) + 1
    users, items = champion.users.encode(rows[USER_ID]), champion.items.encode(rows[ITEM_ID])
    known = np.isin(users * stride + items, histories.user_idx * stride + histories.item_idx)
    found: NDArray[np.bool_] = ~(known & (users > 0) & (items > 0))
    return found


def _later_events(
    champion: Recommender, train: pd.DataFrame
) -> dict[ExternalId | None, UserEvents]:
    """By user, what has come since the champion's log, oldest first."""
    rows = train[is_new(champion.artifact, train)]
    if TIMESTAMP in rows:
        rows = rows.sort_values(TIMESTAMP, kind="stable")
    found: dict[ExternalId | None, UserEvents] = {}
    for user, own in rows.groupby(USER_ID, sort=False):
        number = len(own)
        ratings = own[RATING].tolist() if RATING in own else [None] * number
        times = own[TIMESTAMP].tolist() if TIMESTAMP in own else [0] * number
        found[user] = UserEvents(  # type: ignore[index]
            version=1,
            item_ids=own[ITEM_ID].tolist(),
            timestamps=times,
            ratings=ratings,
            types=[type_set([name]) for name in own[TYPE]] if TYPE in own else (),
        )
    return found


def _count(champion: Recommender, train: pd.DataFrame) -> None:
    """Let popularity know of what has come since the log, as a server does."""
    rows = train[is_new(champion.artifact, train)]
    items = champion.items.encode(rows[ITEM_ID])
    rows, items = rows[items > 0], items[items > 0]
    if TIMESTAMP not in rows or not len(rows):
        return
    ratings = np.full(len(rows), np.nan)
    if RATING in rows:
        ratings = rows[RATING].to_numpy(np.float64)
    weights = rows[WEIGHT].to_numpy(np.float64) if WEIGHT in rows else None
    times = rows[TIMESTAMP].to_numpy(np.int64)
    champion.features.add(items, times, ratings, weights)
    champion.popularity.refresh()


def _with_new_items(champion: Recommender, challenger: Artifact) -> Recommender:
    frame = challenger.item_frame
    new = (champion.items.encode(frame[ITEM_ID]) == 0).nonzero()[0]
    same_text = champion.manifest.get("text") == challenger.manifest.get("text")
    if not len(new) or not same_text:
        return champion
    text = challenger.text[torch.from_numpy(new) + 1].numpy()
    return champion.with_items(frame.iloc[new].reset_index(drop=True), text)


def _known(item_ids: list[ExternalId], data: TrainingData) -> list[ExternalId]:
    """Without items that have left the catalogue."""
    encoded = data.items.encode(item_ids)
    return (
        item_ids
        if encoded.all()
        else [item for item, number in zip(item_ids, encoded.tolist(), strict=True) if number]
    )
