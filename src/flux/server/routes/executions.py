"""/executions and /approvals: looking at executions, stopping them, deciding what they ask."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response

from flux.engine.intake.answers import Decision
from flux.engine.workflows import history
from flux.server.context import events_page, process_of, scope_of, stream, wants_events
from flux.server.wire import Decide, Limit, Rename, approval_row, decode_cursor, encode_cursor, page
from flux.store.feed import Cursor
from flux.store.interrupts import Interrupt

router = APIRouter(tags=["executions"])

ShownState = Literal["SCHEDULED", "RESUMING", "RUNNING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED"]
Status = Literal["open", "approved", "rejected", "cancelled", "expired"]
EVENTS = {200: {"content": {"text/event-stream": {}}, "description": "The events, as they happen"}}


@router.get("/executions")
async def list_executions(
    request: Request,
    state: ShownState | None = None,
    workflow: str | None = None,
    agent: str | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Executions of workflows, and sessions, newest first."""
    after = decode_cursor(cursor, float, str)
    found = await process_of(request).executions.page(
        scope_of(request),
        state=state,
        workflow=workflow,
        agent=agent,
        after=(after[0], after[1]) if after else None,
        limit=limit + 1,
    )
    more = encode_cursor(found[limit - 1].created, found[limit - 1].id) if len(found) > limit else None
    return page([history.listed(row) for row in found[:limit]], more)


@router.get("/executions/{id}")
async def get_execution(request: Request, id: str, detailed: bool = False) -> dict[str, Any]:
    """One execution; with `detailed` its events too."""
    return await process_of(request).executions.summary(scope_of(request), id, detailed=detailed)


@router.get("/executions/{id}/events", response_model=None, responses=EVENTS)  # type: ignore[arg-type]
async def execution_events(
    request: Request,
    id: str,
    after: str = "0",
    cursor: str | None = None,
    limit: Limit = 100,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """The log behind `after`, or `cursor`: a page of JSON, or by Accept a stream that stays open."""
    executions, scope = process_of(request).executions, scope_of(request)
    place = Cursor.parse(last_event_id or cursor or after)
    if wants_events(request):
        await executions.get(scope, id)
        return stream(request, executions.follow(scope, id, place))
    return events_page(await executions.entries(scope, id, place.seq, limit + 1), limit)


@router.post("/executions/{id}/cancel", status_code=202)
async def cancel_execution(request: Request, id: str) -> Response:
    """Cancel an execution with all it started; a session ends."""
    executions, scope = process_of(request).executions, scope_of(request)
    admitted = await executions.cancel(scope, id)
    shown = await executions.summary(scope, id)
    return JSONResponse(shown | {"cancelled": admitted is not None}, 202)


@router.put("/executions/{id}/name")
async def rename_execution(request: Request, id: str, body: Rename) -> dict[str, Any]:
    """Change the name people see."""
    executions, scope = process_of(request).executions, scope_of(request)
    await executions.rename(scope, id, body.name)
    return await executions.summary(scope, id)


@router.get("/approvals")
async def list_approvals(
    request: Request, status: Status | None = None, limit: Limit = 50, cursor: str | None = None
) -> dict[str, Any]:
    """Approvals that were asked for in all executions, newest first."""
    return await _approvals(request, None, status, limit, cursor)


@router.get("/executions/{id}/approvals")
async def execution_approvals(
    request: Request, id: str, status: Status | None = None, limit: Limit = 50, cursor: str | None = None
) -> dict[str, Any]:
    """Approvals that an execution asked for, newest first."""
    return await _approvals(request, id, status, limit, cursor)


@router.post("/executions/{id}/approvals/{call}/approve")
async def approve(request: Request, id: str, call: str, body: Decide | None = None) -> dict[str, Any]:
    """Let a task run; `always` lets it run for the rest of this execution."""
    return await _decide(request, id, call, "approve", body)


@router.post("/executions/{id}/approvals/{call}/reject")
async def reject(request: Request, id: str, call: str, body: Decide | None = None) -> dict[str, Any]:
    """Do not let a task run."""
    return await _decide(request, id, call, "reject", body)


async def _approvals(
    request: Request, id: str | None, status: str | None, limit: int, cursor: str | None
) -> dict[str, Any]:
    after = decode_cursor(cursor, float, str)
    found: list[Interrupt] = await process_of(request).executions.approvals(
        scope_of(request), id, state=status, after=(after[0], after[1]) if after else None, limit=limit + 1
    )
    more = encode_cursor(found[limit - 1].created, found[limit - 1].id) if len(found) > limit else None
    return page([approval_row(asked) for asked in found[:limit]], more)


async def _decide(request: Request, id: str, call: str, word: str, body: Decide | None) -> dict[str, Any]:
    given = body or Decide()
    decision = Decision(word, given.reason, given.always)
    return approval_row(await process_of(request).executions.decide(scope_of(request), id, call, decision))
