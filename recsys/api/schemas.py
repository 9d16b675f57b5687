"""What the HTTP application is asked and answers."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    model_validator,
)

from recsys.api.batcher import Fallback
from recsys.api.ids import BodyId
from recsys.api.live_state import Degraded
from recsys.rules.ids import MAX_ID_LENGTH
from recsys.schema import ExternalId, Source

DEFAULT_TOP_K = 10
MAX_TOP_K = 100
MAX_USERS = 100
MAX_EXPLAINED = 16
"""Lists are explained one at a time, which takes long."""
MAX_HISTORY = 1000
MAX_QUERY_LENGTH = 2000
MAX_LISTED = 10_000
MAX_GENRES = 100

Genre = Annotated[str, StringConstraints(min_length=1, max_length=100)]

EventName = Annotated[str, StringConstraints(min_length=1, max_length=100)]

EXPLAIN = "Add why each item is in the list, as far as the deadline leaves time for it."

_EXAMPLE: dict[str, Any] = {
    "user_id": 123,
    "top_items": [286, 50, 258],
    "model_version": "ml100k-1f0c9a3e",
    "source": "reranked",
}


class HistoryReason(BaseModel):
    """An item of the history, and by how much the score would be lower without it."""

    item_id: ExternalId
    contribution: float


class ItemExplanation(BaseModel):
    """Why an item is in its place."""

    item_id: ExternalId
    score: float = Field(description="Comparable within this list only.")
    rank: int
    rule: str | None = Field(
        default=None, description="What has moved it to its place, besides its score."
    )
    retrieved_rank: int | None = Field(
        default=None, description="Its place in stage 1's order, where it is a candidate of that."
    )
    because: list[HistoryReason] = Field(
        description="The items of the history that contributed most, measured on the model by "
        "leaving out one at a time."
    )


class Recommendations(BaseModel):
    """A ranked list, best first."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    user_id: ExternalId | None = Field(default=None, description="Absent for a history alone.")
    top_items: list[ExternalId] = Field(
        description="Item ids; fewer than top_k only where the catalogue has no more."
    )
    model_version: str
    source: Source = Field(
        description="Who ordered the list: stage 2, stage 1, or popularity, as for an unknown user."
    )
    fallback: Fallback | None = Field(
        default=None,
        description="Why the list is of a lesser stage than it could be, less diverse than asked "
        "for, or not explained: the deadline would not have been kept, or a stage failed.",
    )
    degraded: list[Degraded] | None = Field(
        default=None,
        description="What the list was made without: store, the event store, which cannot be read "
        "now, so that it knows what was known before; query, since the text model was not ready in "
        "time; history, since the list would have told what the user did, which wants a key; "
        "explanations, for which there was no time.",
    )
    notes: list[str] | None = Field(default=None, description="Why the list is shorter than top_k.")
    propensities: list[float] | None = Field(
        default=None,
        description="Where new items are put in: how likely each item was to be at its place.",
    )
    explanations: list[ItemExplanation] | None = Field(
        default=None, description="Of each item in turn, when explain=true."
    )
    titles: list[str] | None = Field(
        default=None, description="The items' titles, when with_titles=true."
    )


Context = dict[
    Annotated[str, StringConstraints(max_length=100)],
    Annotated[str, StringConstraints(max_length=200)] | FiniteFloat,
]


class RulesBody(BaseModel):
    """Rules in place of the server's own; those that are left out stay."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"genres_any": ["Sci-Fi"], "year_min": 1990, "caps": {"decade": 5}}]
        },
    )

    exclude_seen: bool = Field(default=True, description="Leave out the items of the history.")
    exclude_types: list[EventName] | None = Field(
        default=None,
        max_length=MAX_GENRES,
        description="Of the items of the history, leave out those alone that the user had by an "
        'event of one of these types, e.g. ["purchase"]; null: all of them.',
    )
    block: list[BodyId] = Field(default_factory=list, max_length=MAX_LISTED)
    allow: list[BodyId] | None = Field(
        default=None, max_length=MAX_LISTED, description="Only these items."
    )
    genres_any: list[Genre] = Field(default_factory=list, max_length=MAX_GENRES)
    genres_all: list[Genre] = Field(default_factory=list, max_length=MAX_GENRES)
    genres_none: list[Genre] = Field(default_factory=list, max_length=MAX_GENRES)
    year_min: int | None = Field(default=None, ge=1, le=9999)
    year_max: int | None = Field(default=None, ge=1, le=9999)
    caps: dict[Literal["genre", "year", "decade"], Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="How many items of one value a list may hold."
    )
    pin: list[BodyId] = Field(
        default_factory=list, max_length=MAX_TOP_K, description="Items that come first."
    )
    boost: dict[
        Annotated[str, StringConstraints(pattern=r"^(genre|item):.{1,256}$")],
        Annotated[float, Field(gt=0, le=1e6)],
    ] = Field(
        default_factory=dict,
        max_length=MAX_GENRES,
        description="What the odds of an item are multiplied by: genre:NAME or item:ID.",
    )
    diversity: float = Field(
        default=0.0, ge=0, le=1, description="0: by score; 1: as unlike one another as can be."
    )
    diversify: Literal["mmr", "dpp"] = "mmr"

    def changes(self) -> dict[str, Any]:
        """What was sent."""
        return self.model_dump(exclude_unset=True)

    def items(self) -> list[ExternalId]:
        """All item ids that were sent."""
        return [*self.block, *(self.allow or []), *self.pin]


class RecommendBody(BaseModel):
    """Users, or one history without a stored one, or none of both with a query or a context."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"user_ids": [1, 2, 3], "top_k": 5},
                {"history": [50, 181], "top_k": 10},
                {"query": "slow-burn science fiction"},
            ]
        },
    )

    user_ids: list[BodyId] | None = Field(default=None, min_length=1, max_length=MAX_USERS)
    history: list[BodyId] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_HISTORY,
        description="Item ids, oldest first; those not in the catalogue are passed over.",
    )
    query: str | None = Field(
        default=None, min_length=1, max_length=MAX_QUERY_LENGTH, description="What is wanted."
    )
    context: Context | None = Field(
        default=None,
        max_length=100,
        description="Attributes of the user that the model was trained with, such as "
        '{"age": 24}; with user_ids, in place of the stored ones.',
    )
    exclude: list[BodyId] = Field(
        default_factory=list, max_length=MAX_HISTORY, description="Item ids to leave out."
    )
    top_k: int = Field(default=DEFAULT_TOP_K, ge=1, le=MAX_TOP_K)
    with_titles: bool = False
    explain: bool = Field(default=False, description=EXPLAIN)
    rules: RulesBody | None = None

    @model_validator(mode="after")
    def _asks_for_something(self) -> "RecommendBody":
        if self.user_ids is not None and self.history is not None:
            raise ValueError("expected user_ids or history, found both")
        if all(one is None for one in (self.user_ids, self.history, self.query, self.context)):
            raise ValueError("expected user_ids, history, query or context, found none of them")
        if self.explain and len(self.user_ids or ()) > MAX_EXPLAINED:
            raise ValueError(
                f"expected at most {MAX_EXPLAINED} user_ids with explain, "
                f"found {len(self.user_ids or ())}"
            )
        return self


class RecommendResults(BaseModel):
    """A list per user, in the order asked for; one for a history."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"results": [_EXAMPLE]}]})

    results: list[Recommendations]


class Health(BaseModel):
    """Whether the process runs, or can answer."""

    status: str = Field(examples=["ok"])


class Ready(Health):
    """What a ready server serves."""

    model_version: str


class ReloadBody(BaseModel):
    """Which bundle is to answer from now on."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(
        default=None,
        max_length=MAX_ID_LENGTH,
        description="A folder beside the served bundle; none: the newest.",
    )


class ModelEntry(BaseModel):
    """A bundle that could be served."""

    name: str
    version: str
    serving: bool
    metrics: dict[str, Any] | None = Field(description="As in its metrics.json.")


class Models(BaseModel):
    """The bundles beside the served one, newest first."""

    models: list[ModelEntry]


class Error(BaseModel):
    """Why a request was refused."""

    detail: str


class Problem(BaseModel):
    """What is wrong with one part of a request."""

    type: str
    loc: list[str | int] = Field(description="Where, from the outside in: query, top_k.")
    msg: str


class Invalid(BaseModel):
    """Why a request could not be understood."""

    detail: list[Problem]
