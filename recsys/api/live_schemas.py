"""What the routes of events, items and users are sent, and answer."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from recsys.api.ids import BodyId
from recsys.api.live_state import Degraded
from recsys.api.times import EventTime, with_seconds
from recsys.events.types import EventType
from recsys.rules.ids import MAX_ID_LENGTH
from recsys.schema import ExternalId

MAX_EVENTS = 1000
MAX_TOLD = 10
MAX_TITLE_LENGTH = 1000
MAX_TEXT_LENGTH = 20_000
MAX_GENRES = 100

Genre = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^|]*$")]

FeatureValue = bool | int | float | str | None

_EVENT: dict[str, Any] = {
    "event_id": "5f0c9a3e",
    "user_id": 123,
    "item_id": 50,
    "type": "rating",
    "value": 4.0,
}


class EventBody(BaseModel):
    """What a user did with an item."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EVENT]})

    event_id: str = Field(
        min_length=1,
        max_length=MAX_ID_LENGTH,
        description="Chosen by the sender, unique among all events: one that is sent again counts "
        "once.",
    )
    user_id: BodyId
    item_id: BodyId
    type: EventType = Field(description="A dismissed item is not recommended any more.")
    value: float | None = Field(default=None, allow_inf_nan=False, description="E.g. the rating.")
    timestamp: EventTime | None = Field(
        default=None,
        description="Unix seconds, or ISO 8601 (UTC where no zone is given); none: now.",
    )


class EventsBody(BaseModel):
    """Events that are stored together, or not at all."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"events": [_EVENT]}]}
    )

    events: list[EventBody] = Field(min_length=1, max_length=MAX_EVENTS)

    @model_validator(mode="before")
    @classmethod
    def _times_in_seconds(cls, sent: Any) -> Any:
        events = sent.get("events") if isinstance(sent, dict) else None
        return {**sent, "events": with_seconds(events)} if isinstance(events, list) else sent


class Accepted(BaseModel):
    """What became of the events: they are durable, and count in the next list."""

    accepted: int = Field(description="Stored by this request.")
    duplicates: int = Field(description="Known by their event_id before.")
    unknown_items: int = Field(
        description="Events, of all that were sent, of items that are not in the catalogue now: "
        "mistyped, or put later. They are stored, too."
    )
    unknown_item_ids: list[ExternalId] | None = Field(
        default=None, description=f"Of these items, the first {MAX_TOLD}."
    )


class ItemBody(BaseModel):
    """An item as text and attributes."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "title": "Solaris",
                    "description": "A psychologist is sent to a station above a strange ocean.",
                    "genres": ["Drama", "Sci-Fi"],
                    "year": 1972,
                }
            ]
        },
    )

    title: str = Field(min_length=1, max_length=MAX_TITLE_LENGTH)
    description: str = Field(default="", max_length=MAX_TEXT_LENGTH)
    genres: list[Genre] = Field(default_factory=list, max_length=MAX_GENRES)
    year: int | None = Field(default=None, ge=1, le=9999)
    release_date: str = Field(
        default="", pattern=r"^(\d{4}-\d{2}-\d{2})?$", description="YYYY-MM-DD."
    )


class ItemStored(BaseModel):
    """An item that is durable, and recommended from now on."""

    item_id: ExternalId
    title: str
    model_version: str


class UserForgotten(BaseModel):
    """A user whose events are deleted, and whose part of the training log is not used any more."""

    user_id: ExternalId
    forgotten: bool = True


class Features(BaseModel):
    """What is known now, by feature and attribute (see docs/features.md); null: not known."""

    as_of: int = Field(description="Unix seconds.")
    user: dict[str, FeatureValue] | None = None
    item: dict[str, FeatureValue] | None = None
    degraded: list[Degraded] | None = None
