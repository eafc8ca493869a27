"""Is the server alive, and can it work?"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

import flux
from flux.server.context import process_of
from flux.store.database import one

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(request: Request) -> dict[str, Any]:
    """Liveness, with the version."""
    return {"status": "ok", "version": flux.__version__}


@router.get("/ready")
async def ready(request: Request) -> dict[str, Any]:
    """Readiness: the database answers."""
    await process_of(request).database.read(one("select 1"))
    return {"status": "ok", "version": flux.__version__, "database": "ok"}
