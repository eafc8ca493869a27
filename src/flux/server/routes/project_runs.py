"""/workflows/{name} and /runs/{id}: the workflows of a project by the names of their files, and their runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response

from flux.errors import WorkflowNotFound
from flux.server.context import events_page, process_of, scope_of, stream
from flux.server.rbac import check
from flux.server.rules import WORKFLOW
from flux.server.waiting import waiter_for
from flux.server.wire import Limit, StartRun
from flux.store.feed import Cursor
from flux.suggest import unknown

router = APIRouter(tags=["projects"])

Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=256)]
STATUS = {"COMPLETED": "completed", "FAILED": "failed", "CANCELLED": "cancelled", "PAUSED": "waiting"}
EVENTS = {200: {"content": {"text/event-stream": {}}, "description": "The events, as they happen"}}


@router.post("/workflows/{name}", status_code=202)
async def start_run(
    request: Request, name: str, body: StartRun | None = None, wait: Literal["result"] | None = None, key: Key = None
) -> JSONResponse:
    """Run a workflow of the project with a payload: 202 with `run_id`, or with `wait=result` its end."""
    process, workflow = process_of(request), _named(request, name)
    namespace, _, known_as = workflow.partition("/")
    check(request, f"{WORKFLOW}:run", knows=f"{WORKFLOW}:read", namespace=namespace, name=known_as)
    scope = scope_of(request)
    admitted = await process.executions.start(scope, workflow, body.payload if body else None, key=key)
    if wait is None:
        shown = await process.executions.summary(scope, admitted.id)
    else:
        shown = await (await waiter_for(request, scope, admitted, talks=False)).at_rest(Cursor(0))
    run = _run(shown)
    return JSONResponse(run, 200 if run["status"] in ("completed", "failed", "cancelled") else 202)


@router.get("/runs/{id}")
async def get_run(request: Request, id: str) -> dict[str, Any]:
    """A run: its status, and its result once it has completed."""
    return _run(await process_of(request).executions.summary(scope_of(request), id))


@router.get("/runs/{id}/events", response_model=None)
async def run_events(request: Request, id: str, after: str = "0", limit: Limit = 100) -> Response:
    """A page of the log of a run, behind `after`."""
    rows = await process_of(request).executions.entries(scope_of(request), id, Cursor.parse(after).seq, limit + 1)
    return events_page(rows, limit)


@router.get("/runs/{id}/stream", response_model=None, responses=EVENTS)  # type: ignore[arg-type]
async def stream_run(
    request: Request,
    id: str,
    after: str = "0",
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """The events of a run as a stream that stays open."""
    executions, scope = process_of(request).executions, scope_of(request)
    await executions.get(scope, id)
    return stream(request, executions.follow(scope, id, Cursor.parse(last_event_id or after)))


def _named(request: Request, name: str) -> str:
    """The workflow of a file of the project, as "namespace/name"."""
    project = process_of(request).project
    if project is None:
        raise WorkflowNotFound("this server has no project: start it with `flux dev`, or with --project DIR")
    found = project.workflows.get(name)
    if found is None:
        raise WorkflowNotFound(unknown("workflow", name, project.workflows))
    return found.qualified_name


def _run(shown: dict[str, Any]) -> dict[str, Any]:
    """An execution in the words of projects."""
    status = STATUS.get(shown["state"], "running")
    return {
        "run_id": shown["execution_id"],
        "workflow": shown["workflow"],
        "status": status,
        "waiting_for": shown["waiting_for"],
        "result": shown["output"] if status == "completed" else None,
        "error": shown["error"],
        "created_at": shown["created_at"],
        "updated_at": shown["updated_at"],
    }
