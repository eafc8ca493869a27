"""/agents/{name}/{id}: instances of the project's agents, prompted, streamed, and given input to work on later."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response

from flux.agents.harness.dispatching import dispatched
from flux.agents.project.instances import Address
from flux.engine.intake.inputs import NewMessage
from flux.http.streaming import first_done, gone
from flux.server.context import process_of, scope_of, stream, wants_events
from flux.server.prompted import Prompted
from flux.server.wire import DispatchInput, PromptInstance
from flux.store.feed import Cursor

router = APIRouter(tags=["projects"])

Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=256)]
EVENTS = {
    200: {
        "content": {"text/event-stream": {}},
        "description": "The result, or by Accept what happens until it is there",
    }
}


@router.post("/agents/{name}/{id}", response_model=None, responses=EVENTS)  # type: ignore[arg-type]
async def prompt_instance(
    request: Request,
    name: str,
    id: str,
    body: PromptInstance,
    key: Key = None,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """Prompt an instance: 200 with its result, 202 when its run waits for a person, or by Accept its events.

    With the same Idempotency-Key and Last-Event-ID a stream that broke is read on.
    """
    process, scope, to = process_of(request), scope_of(request), Address(name, id, body.session)
    await process.instances.authorize(request, name, id)
    admitted = await process.instances.send(scope, to, NewMessage(body.message, "reject"), key=key)
    prompted = Prompted(process, scope, to, admitted)
    if wants_events(request):
        return stream(request, prompted.told(Cursor.parse(last_event_id) if last_event_id else None))
    await rested(request, prompted)
    found = await prompted.result()
    return JSONResponse(found, 200 if found["result"] else 202)


@router.post("/agents/{name}/{id}/dispatch", status_code=202)
async def dispatch_to_instance(
    request: Request, name: str, id: str, body: DispatchInput, key: Key = None
) -> dict[str, str]:
    """Give an instance input to work on when its turn comes: durable when this answers."""
    process, scope, to = process_of(request), scope_of(request), Address(name, id, body.session)
    await process.instances.authorize(request, name, id)
    admitted = await process.instances.send(scope, to, dispatched(body.input), key=key)
    told = await process.instances.dispatched(scope, f"{admitted.id}.{admitted.seq}")
    return {"status": "accepted", "dispatch_id": told["dispatch_id"], "accepted_at": told["accepted_at"]}


@router.get("/dispatches/{id}")
async def get_dispatch(request: Request, id: str) -> dict[str, Any]:
    """What has become of a dispatch: `status`, and its `text` or `error` once it has ended."""
    process, scope = process_of(request), scope_of(request)
    return await process.instances.dispatched(scope, id)


async def rested(request: Request, prompted: Prompted) -> None:
    """Return when the run rests, the caller leaves, or the server is about to stop."""

    async def drain() -> None:
        async for _ in prompted.until_rest():
            pass

    done = await first_done(
        asyncio.create_task(drain()),
        asyncio.create_task(gone(request.receive)),
        asyncio.create_task(request.app.state.closing.wait()),
    )
    for task in done:
        task.result()
