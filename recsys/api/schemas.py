"""What the HTTP application answers."""

from pydantic import BaseModel, ConfigDict, Field

from recsys.schema import ExternalId, Source

DEFAULT_TOP_K = 10
MAX_TOP_K = 100


class Recommendations(BaseModel):
    """A ranked list for one user, best first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": 123,
                    "top_items": [286, 50, 258],
                    "model_version": "ml100k-1f0c9a3e",
                    "source": "reranked",
                }
            ]
        }
    )

    user_id: ExternalId
    top_items: list[ExternalId] = Field(
        description="Item ids; fewer than top_k only where the catalogue has no more."
    )
    model_version: str
    source: Source = Field(
        description="Who ordered the list: stage 2, stage 1, or popularity for an unknown user."
    )
    titles: list[str] | None = Field(
        default=None, description="The items' titles, when with_titles=true."
    )


class Health(BaseModel):
    """Whether the process runs, or can answer."""

    status: str = Field(examples=["ok"])


class Ready(Health):
    """What a ready server serves."""

    model_version: str


class Error(BaseModel):
    """Why a request was refused."""

    detail: str
