"""The routes that change or list what is served."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body, Depends

from recsys.api.keys import Gate
from recsys.api.schemas import Error, ModelEntry, Models, Ready, ReloadBody
from recsys.api.service import Service


def admin_routes(service: Service, gate: Gate) -> APIRouter:
    """``POST /admin/reload`` and ``GET /admin/models``, behind the gate."""
    router = APIRouter(
        prefix="/admin",
        tags=["administration"],
        dependencies=[Depends(gate.admit)],
        responses={400: {"model": Error}, 401: {"model": Error}},
    )

    @router.post("/reload", responses={503: {"model": Error}})
    async def reload(body: Annotated[ReloadBody | None, Body()] = None) -> Ready:
        """Serve the newest bundle, or a named one; the present one goes on if that fails.

        One after the other: who asks while another is loaded waits for a turn, and shares it with
        those who ask for the same; 503 where too many wait.
        """
        name = body.name if body is not None else None
        loaded = await service.models.reload_in_turn(name)
        return Ready(status="ok", model_version=loaded.model_version)

    @router.get("/models")
    async def models() -> Models:
        """The bundles that could be served."""
        serving = service.models.current.model_version
        entries = await asyncio.to_thread(service.models.listed)
        return Models(
            models=[
                ModelEntry(
                    name=entry["name"],
                    version=entry["version"],
                    serving=entry["version"] == serving,
                    metrics=entry["metrics"],
                )
                for entry in entries
            ]
        )

    return router
