"""The route that tells features of users and items."""

import time
from typing import Annotated, Any

import numpy as np
import pandas as pd
from fastapi import APIRouter, Depends

from recsys.api.ids import item_query, user_query
from recsys.api.live_schemas import Features, FeatureValue
from recsys.api.schemas import Error
from recsys.api.service import Service
from recsys.schema import ITEM_ID, USER_ID, ExternalId


def feature_routes(service: Service) -> APIRouter:
    """``GET /features``."""
    responses: dict[int | str, dict[str, Any]] = {code: {"model": Error} for code in (400, 401)}
    router = APIRouter(tags=["features"], responses=responses)
    of_user = user_query(service.holds_integer_users, optional=True)
    of_item = item_query(service.holds_integer_items, optional=True)

    @router.get("/features", response_model_exclude_unset=True)
    async def features(
        user_id: Annotated[ExternalId | None, Depends(of_user)],
        item_id: Annotated[ExternalId | None, Depends(of_item)],
    ) -> Features:
        """What is known of a user, an item, or both, right now."""
        found = Features(as_of=int(time.time()))
        if user_id is not None:
            await _add_user(service, found, user_id)
        if item_id is not None:
            _add_item(service, found, item_id)
        return found

    return router


async def _add_user(service: Service, found: Features, user_id: ExternalId) -> None:
    events, is_known = await service.events_of(user_id, service.options.deadline_ms / 1000)
    recommender = service.models.current
    (user,) = [0] if events.forgets_log else recommender.users.encode([user_id]).tolist()
    times = np.array(events.timestamps, np.int64)
    ratings = np.array(events.ratings, np.float64)
    items = recommender.items.encode(events.item_ids)
    later = recommender.histories.are_since(np.full(len(times), user), items, times)
    known = recommender.features.user(user, times[later], ratings[later], found.as_of)
    found.user = _plain(known) | _row(recommender.artifact.user_frame, user, USER_ID)
    if not is_known:
        found.degraded = ["store"]


def _add_item(service: Service, found: Features, item_id: ExternalId) -> None:
    recommender = service.models.current
    (item,) = recommender.items.encode([item_id]).tolist()
    values = recommender.features.items([item], found.as_of)
    known = {name: float(value[0]) for name, value in values.items()}
    later = service.models.later_items([item_id])
    attributes = (
        _row(later, 1, ITEM_ID) if len(later) else _row(recommender.item_frame, item, ITEM_ID)
    )
    found.item = _plain(known) | attributes


def _row(frame: pd.DataFrame, index: int, key: str) -> dict[str, FeatureValue]:
    """The attributes in a row of a frame that is aligned to a vocabulary; none of index 0."""
    if not index:
        return {}
    row = frame.iloc[index - 1].drop(key)
    return _plain(dict(zip(map(str, row.index), row, strict=True)))


def _plain(values: dict[str, Any]) -> dict[str, FeatureValue]:
    """As JSON has them: null for NaN and other missing values."""
    found: dict[str, FeatureValue] = {}
    for name, value in values.items():
        plain = value.item() if isinstance(value, np.generic) else value
        known = plain if isinstance(plain, (bool, int, float, str)) else str(plain)
        found[name] = None if pd.isna(plain) else known
    return found
