"""/workflows/{namespace}/{name}/run and /resume: executions that are started, answered, and waited for."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Body, Depends, Header, Query, Request
from fastapi.responses import Response

from flux.engine.service.identity import TALK
from flux.server.context import process_of, scope_of
from flux.server.rbac import check
from flux.server.waiting import waiter_for
from flux.server.wire import Json
from flux.store.feed import Cursor
from flux.store.workflows import AGENT_CHAT, AGENTS

router = APIRouter(tags=["workflows"])

Mode = Literal["sync", "async", "stream"]
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=256)]
Input = Annotated[Json, Body()]
Version = Annotated[int | None, Query(ge=1, le=2**31 - 1)]
EVENTS = {200: {"content": {"text/event-stream": {}}, "description": "The states and the progress, until it rests"}}


class Asked(NamedTuple):
    """How the caller wants to hear of it."""

    detailed: bool
    key: str | None


async def _asked(detailed: bool = False, key: Key = None) -> Asked:
    return Asked(detailed, key)


How = Annotated[Asked, Depends(_asked)]


@router.post("/workflows/{namespace}/{name}/run/{mode}", response_model=None, responses=EVENTS)  # type: ignore[arg-type]
async def run_workflow(
    request: Request,
    namespace: str,
    name: str,
    mode: Mode,
    how: How,
    input: Input = None,
    version: Version = None,
) -> Response:
    """Start an execution; the body is its input.

    `sync` answers when it rests, `async` at once. `stream` tells the states and the progress until it rests, and
    `async` with Accept: text/event-stream the events of its log.
    """
    _check_run(request, namespace, name, input)
    contract, scope = process_of(request).contract, scope_of(request)
    admitted = await contract.start(scope, f"{namespace}/{name}", input, version=version, key=how.key)
    waiter = await waiter_for(request, scope, admitted, talks=namespace == AGENTS)
    return await waiter.answer(mode, Cursor(0), detailed=how.detailed)


@router.post("/workflows/{namespace}/{name}/resume/{id}/{mode}", response_model=None, responses=EVENTS)  # type: ignore[arg-type]
async def resume_workflow(
    request: Request,
    namespace: str,
    name: str,
    id: str,
    mode: Mode,
    how: How,
    input: Input = None,
    pause: str | None = None,
) -> Response:
    """Answer a pause; the body is what it returns. `pause` names it where several are open.

    The modes are those of a run.
    """
    contract, scope = process_of(request).contract, scope_of(request)
    admitted = await contract.resume(scope, f"{namespace}/{name}", id, input, pause, key=how.key)
    waiter = await waiter_for(request, scope, admitted, talks=namespace == AGENTS)
    return await waiter.answer(mode, Cursor(admitted.seq - 1), detailed=how.detailed)


def _check_run(request: Request, namespace: str, name: str, input: Any) -> None:
    """A workflow needs the permission to run it; where an agent talks, that is the one to start the agent."""
    if namespace != AGENTS:
        check(request, "workflow:{namespace}:{name}:run", knows="workflow:{namespace}:{name}:read")
        return
    given = input.get("agent") if isinstance(input, dict) else None
    agent = given if name == AGENT_CHAT and isinstance(given, str) else name
    check(request, "workflow:{namespace}:{name}:run", TALK, "agent:{agent}:start", agent=agent)
