"""The routes by which events and items come in, and users' data goes."""

import itertools
import time
from dataclasses import replace
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Depends, status

from recsys.api.ids import item_path, user_path
from recsys.api.keys import Gate
from recsys.api.live_schemas import (
    MAX_TOLD,
    Accepted,
    EventsBody,
    ItemBody,
    ItemStored,
    UserForgotten,
)
from recsys.api.live_state import LiveState
from recsys.api.schemas import Error
from recsys.api.telemetry import Telemetry
from recsys.api.texts import check_texts
from recsys.errors import InputError
from recsys.events.types import Event, Item
from recsys.rules.ids import check_ids
from recsys.schema import GENRE_SEPARATOR, ExternalId
from recsys.stored_state import as_bytes, text_of
from recsys.text.from_config import fingerprint_of

_RESPONSES: dict[int | str, dict[str, Any]] = {
    status.HTTP_400_BAD_REQUEST: {"model": Error},
    status.HTTP_401_UNAUTHORIZED: {"model": Error},
    status.HTTP_503_SERVICE_UNAVAILABLE: {
        "model": Error,
        "description": "The store cannot be written to now, or a text not be encoded; nothing was "
        "acknowledged, and the request may be repeated.",
    },
}


def live_routes(live: LiveState, gate: Gate, telemetry: Telemetry) -> APIRouter:
    """``POST /events``, ``PUT /items/{item_id}``, ``DELETE /users/{user_id}``, behind the gate."""
    router = APIRouter(
        tags=["events and items"], dependencies=[Depends(gate.admit)], responses=_RESPONSES
    )
    models = live.models
    integer_users = models.current.users.holds_integers
    integer_items = models.current.items.holds_integers

    @router.post("/events", response_model_exclude_none=True)
    async def events(body: EventsBody) -> Accepted:
        """Store events; the users' next lists know them, whichever worker makes them.

        An event of an item that is not in the catalogue is stored, too, and counts once it is.
        """
        check_ids("user", (event.user_id for event in body.events), integer_users)
        check_ids("item", (event.item_id for event in body.events), integer_items)
        now = int(time.time())
        appended = await live.append(
            [
                Event(
                    one.event_id,
                    one.user_id,
                    one.item_id,
                    one.type,
                    one.value,
                    now if one.timestamp is None else one.timestamp,
                )
                for one in body.events
            ]
        )
        telemetry.events(appended.accepted, appended.duplicates)
        known = models.current.items.encode([one.item_id for one in body.events]) > 0
        unknown = [one.item_id for one in itertools.compress(body.events, ~known)]
        return Accepted(
            accepted=appended.accepted,
            duplicates=appended.duplicates,
            unknown_items=len(unknown),
            unknown_item_ids=list(dict.fromkeys(unknown))[:MAX_TOLD] or None,
        )

    @router.put("/items/{item_id:id}")
    async def put_item(
        item_id: Annotated[ExternalId, Depends(item_path(integer_items))], body: ItemBody
    ) -> ItemStored:
        """Add an item, or replace one; it can be recommended from now on.

        An item of the training data keeps its place among tastes until the next training; its
        title, genres and year count at once.
        """
        check_texts(models.current.manifest)
        _check_date(body.release_date)
        described = Item(
            item_id=item_id,
            title=body.title,
            description=body.description,
            genres=GENRE_SEPARATOR.join(body.genres),
            year=body.year,
            release_date=body.release_date,
            text_vector=None,
            text_fingerprint=None,
        )
        manifest = models.current.manifest
        vector = await models.texts.encode(manifest, text_of(described))
        item = replace(
            described, text_vector=as_bytes(vector), text_fingerprint=fingerprint_of(manifest)
        )
        await live.put_item(item)
        return ItemStored(
            item_id=item_id, title=item.title, model_version=models.current.model_version
        )

    @router.delete("/users/{user_id:id}")
    async def delete_user(
        user_id: Annotated[ExternalId, Depends(user_path(integer_users))],
    ) -> UserForgotten:
        """Delete a user's events, and use nothing of what training knew of the user."""
        await live.delete_user(user_id)
        return UserForgotten(user_id=user_id)

    return router


def _check_date(text: str) -> None:
    try:
        if text:
            date.fromisoformat(text)
    except ValueError as error:
        raise InputError("a date as YYYY-MM-DD", repr(text), "correct it") from error
