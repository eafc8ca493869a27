"""Is the server alive, can it work, and what has it done?"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

import flux
from flux.errors import DatabaseUnavailable, Unavailable
from flux.metrics import exposition
from flux.server.context import process_of
from flux.server.measure import Counts
from flux.store.database import one

#: Seconds that the database gets to answer.
ANSWER_SECONDS = 5.0
PROMETHEUS = "text/plain; version=0.0.4"
TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}, "description": "The metrics"}}

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(request: Request) -> dict[str, Any]:
    """Liveness, with the version and the state of the database; the server lives also without it."""
    try:
        await _ask_database(request)
    except Unavailable as error:
        return {"status": "ok", "version": flux.__version__, "database": str(error)}
    return {"status": "ok", "version": flux.__version__, "database": "ok"}


@router.get("/ready")
async def ready(request: Request) -> dict[str, Any]:
    """Readiness: the database answers. Else 503 with the reason."""
    await _ask_database(request)
    return {"status": "ok", "version": flux.__version__, "database": "ok"}


@router.get("/metrics", response_class=Response, responses=TEXT)
async def metrics(request: Request) -> PlainTextResponse:
    """Metrics in the text format of Prometheus."""
    counts: Counts = request.app.state.counts
    return PlainTextResponse(exposition(await counts.families()), media_type=PROMETHEUS)


async def _ask_database(request: Request) -> None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await process_of(request).database.read(one("select 1"))
    except TimeoutError as error:
        raise DatabaseUnavailable(f"the database has not answered for {ANSWER_SECONDS:g} seconds") from error
