"""/workflows/{namespace}/{name}/run and /resume: executions that are started, answered, and waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from fastapi import APIRouter, Body, Depends, Header, Query, Request
from fastapi.responses import JSONResponse, Response

from flux.engine import history
from flux.engine.answers import Admitted
from flux.engine.executions import Executions
from flux.errors import ExecutionNotFound
from flux.server.context import process_of, scope_of, stream
from flux.server.sse import Begun, gone
from flux.server.wire import Json
from flux.store.database import Scope
from flux.store.feed import Cursor, Frame

router = APIRouter(tags=["workflows"])

Mode = Literal["sync", "async", "stream"]
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=256)]
Input = Annotated[Json, Body()]
Version = Annotated[int | None, Query(ge=1, le=2**31 - 1)]
EVENTS = {200: {"content": {"text/event-stream": {}}, "description": "The states and the progress, until it rests"}}

#: Seconds that a caller who waits is kept waiting for a worker, a timer, or another execution.
PATIENCE_SECONDS = 10.0
#: The states that entries bring, in the words of users.
STATES = {
    "WORKFLOW_SCHEDULED": "scheduled",
    "WORKFLOW_CLAIMED": "claimed",
    "WORKFLOW_STARTED": "running",
    "WORKFLOW_PAUSED": "paused",
    "WORKFLOW_RESUMED": "running",
    "WORKFLOW_COMPLETED": "completed",
    "WORKFLOW_FAILED": "failed",
    "WORKFLOW_CANCELLED": "cancelled",
    "interrupt_answered": "resuming",
    "cancel_requested": "cancelling",
}
BEGINS = ("WORKFLOW_CLAIMED", "WORKFLOW_RESUMED")
ENDS = ("WORKFLOW_COMPLETED", "WORKFLOW_FAILED", "WORKFLOW_CANCELLED")


class Asked(NamedTuple):
    """How the caller wants to hear of it."""

    detailed: bool
    key: str | None


def _asked(detailed: bool = False, key: Key = None) -> Asked:
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
    """Start an execution; the body is its input. `sync` answers when it rests, `async` at once, `stream` streams."""
    executions, scope = process_of(request).executions, scope_of(request)
    admitted = await executions.start(scope, f"{namespace}/{name}", input, version=version, key=how.key)
    waiter = _Waiter(request, executions, scope, admitted)
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
    """Answer a pause; the body is what it returns. `pause` names it where several are open."""
    executions, scope = process_of(request).executions, scope_of(request)
    row = await executions.get(scope, id)
    if row.workflow != f"{namespace}/{name}":
        raise ExecutionNotFound(f"execution {id} is of {row.workflow or 'an agent'}, not of {namespace}/{name}")
    admitted = await executions.resume(scope, id, input, pause, key=how.key)
    waiter = _Waiter(request, executions, scope, admitted)
    return await waiter.answer(mode, Cursor(admitted.seq - 1), detailed=how.detailed)


class _Waiter:
    """Somebody who started or resumed an execution and wants to hear of it."""

    def __init__(self, request: Request, executions: Executions, scope: Scope, admitted: Admitted) -> None:
        self._request = request
        self._executions = executions
        self._scope = scope
        self._id = admitted.id

    async def answer(self, mode: Mode, place: Cursor, *, detailed: bool) -> Response:
        """What the caller gets."""
        if mode == "stream":
            return stream(self._request, self._shown(place))
        if mode == "sync":
            await self._rest(place)
        shown = await self._executions.summary(self._scope, self._id, detailed=detailed)
        return JSONResponse(shown, 200 if mode == "sync" else 202)

    async def _rest(self, place: Cursor) -> None:
        """Return when it rests or nobody begins it, the caller leaves, or the server is about to stop."""
        waits = [
            asyncio.create_task(self._drain(place)),
            asyncio.create_task(gone(self._request.receive)),
            asyncio.create_task(self._request.app.state.closing.wait()),
        ]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _drain(self, place: Cursor) -> None:
        async with aclosing(self._until_rest(place, PATIENCE_SECONDS)) as batches:
            async for _ in batches:
                pass

    async def _until_rest(self, place: Cursor, begun_within: float | None = None) -> AsyncGenerator[list[Frame], None]:
        """Frames up to the one with which the execution ends, or waits for longer than anybody would."""
        async with AsyncExitStack() as stack:
            begun = await Begun.reading(self._executions.follow(self._scope, self._id, place))
            stack.push_async_callback(begun.aclose)
            batches = begun.rest()
            deadline = None if begun_within is None else time.monotonic() + begun_within
            while True:
                timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    batch = await _within(anext(batches), timeout)
                except (TimeoutError, StopAsyncIteration):
                    return
                yield batch
                told = [frame for frame in batch if frame.type in (*BEGINS, *ENDS, "WORKFLOW_PAUSED")]
                rests = await self._rests(told[-1]) if told else "unknown"
                if rests == "now":
                    return
                if rests != "unknown":
                    deadline = time.monotonic() + PATIENCE_SECONDS if rests == "soon" else None

    async def _rests(self, frame: Frame) -> Literal["now", "soon", "no"]:
        if frame.type != "WORKFLOW_PAUSED":
            return "now" if frame.type in ENDS else "no"
        row = await self._executions.get(self._scope, self._id)
        if row.state == "ended":
            return "now"
        if row.state != "waiting":
            return "no"
        return "now" if row.waiting_for in ("pause", "approval") else "soon"

    async def _shown(self, place: Cursor) -> AsyncGenerator[list[Frame], None]:
        """The frames of the run and resume routes: states with the summary, and progress."""
        async with aclosing(self._until_rest(place)) as batches:
            async for batch in batches:
                shown = [found for frame in batch if (found := await self._show(frame)) is not None]
                if shown:
                    yield shown

    async def _show(self, frame: Frame) -> Frame | None:
        if frame.type == "progress":
            return frame._replace(type="task.progress", data=_progress(frame.data))
        state = STATES.get(frame.type)
        if state is None:
            return None
        summary = await self._executions.summary(self._scope, self._id)
        body = msgspec.json.encode(summary | {"state": state.upper()})
        return frame._replace(type=f"{summary['workflow_name']}.execution.{state}", data=body)


def _progress(data: bytes) -> bytes:
    told = msgspec.json.decode(data)
    return msgspec.json.encode(
        {
            "type": "TASK_PROGRESS",
            "source_id": told["call"],
            "name": told.get("name", ""),
            "value": told["value"],
            "time": history.iso(time.time()),
        }
    )


async def _within(batch: Any, timeout: float | None) -> list[Frame]:
    """The next batch.

    :raises TimeoutError: nothing came within `timeout` seconds
    """
    if timeout is None:
        return list(await batch)
    task = asyncio.ensure_future(batch)
    try:
        done, _ = await asyncio.wait((task,), timeout=timeout)
        if not done:
            raise TimeoutError
        return list(task.result())
    finally:
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await task
