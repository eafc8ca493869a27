"""Waiting for an execution on behalf of who started or resumed it, and telling what happens meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any, Literal

import msgspec
from fastapi import Request
from fastapi.responses import JSONResponse, Response

from flux.engine.intake.answers import Admitted
from flux.engine.service.executions import Executions
from flux.engine.workflows import history
from flux.engine.workflows.conversation import MESSAGE
from flux.engine.workflows.journal import FOR_PEOPLE
from flux.events import InterruptAnswered, UserSaid, decode
from flux.http.streaming import first_done, gone
from flux.server.context import process_of, stream, wants_events
from flux.server.sse import Begun
from flux.store.database import Scope
from flux.store.feed import Cursor, Frame
from flux.watch import RunWatch

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
    "session_end": "cancelled",
}
BEGINS = ("WORKFLOW_CLAIMED", "WORKFLOW_RESUMED")
ENDS = ("WORKFLOW_COMPLETED", "WORKFLOW_FAILED", "WORKFLOW_CANCELLED", "session_end")
#: The same of a session, besides those with which it comes to rest.
SESSION_STATES = {
    "session_started": "scheduled",
    "run_started": "running",
    "interrupt_answered": "resuming",
    "cancel_requested": "cancelling",
    "session_end": "cancelled",
}
Rests = Literal["now", "soon", "no", "unknown"]
#: What is told as progress of a task.
PROGRESS = ("progress", "token", "tool_start", "tool_output", "tool_done")


async def waiter_for(request: Request, scope: Scope, admitted: Admitted, *, talks: bool) -> Waiter:
    """Who waits for the execution that was started, or resumed; `talks`: it may be a session.

    :raises ExecutionNotFound: it was deleted meanwhile
    """
    executions = process_of(request).executions
    if not talks or (await executions.get(scope, admitted.id)).kind != "session":
        return Waiter(request, executions, scope, admitted)
    (newest,) = await executions.entries(scope, admitted.id, admitted.seq - 1, 1)
    asks = bool(await executions.questions(scope, admitted.id))
    return SessionWaiter(request, executions, scope, admitted, decode(newest.body), asks=asks)


class Waiter:
    """Somebody who started or resumed an execution and wants to hear of it."""

    def __init__(self, request: Request, executions: Executions, scope: Scope, admitted: Admitted) -> None:
        self._request = request
        self._executions = executions
        self._scope = scope
        self._id = admitted.id

    async def answer(self, mode: str, place: Cursor, *, detailed: bool) -> Response:
        """What the caller gets: with `stream` the states, with `async` and by Accept the events of the log."""
        if mode == "stream":
            return await self._streamed(self._shown(place))
        if mode == "async" and wants_events(self._request):
            return await self._streamed(self._until_rest(place))
        if mode == "sync":
            return JSONResponse(await self.at_rest(place, detailed=detailed))
        shown = self._at_rest(await self._executions.summary(self._scope, self._id, detailed=detailed))
        return JSONResponse(shown, 202)

    async def _streamed(self, batches: AsyncGenerator[list[Frame], None]) -> Response:
        """The stream; its reader is there at once, so that what comes now is seen piece by piece."""
        begun = await Begun.reading(batches)
        return stream(self._request, begun.rest(), {"Flux-Execution": self._id})

    async def at_rest(self, place: Cursor, *, detailed: bool = False) -> dict[str, Any]:
        """The summary, once it rests or nobody begins it."""
        await self._rest(place)
        if detailed:
            return self._at_rest(await self._executions.summary(self._scope, self._id, detailed=True))
        return self._at_rest(await self._executions.result(self._scope, self._id))

    async def _rest(self, place: Cursor) -> None:
        """Return when it rests or nobody begins it, the caller leaves, or the server is about to stop."""
        done = await first_done(
            asyncio.create_task(self._drain(place)),
            asyncio.create_task(gone(self._request.receive)),
            asyncio.create_task(self._request.app.state.closing.wait()),
        )
        for task in done:
            task.result()

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
                rests = await self._judged(batch)
                yield batch
                if rests == "now":
                    return
                if rests != "unknown":
                    deadline = time.monotonic() + PATIENCE_SECONDS if rests == "soon" else None

    async def _judged(self, batch: list[Frame]) -> Rests:
        """How it stands after these frames: does it rest now, or soon unless something comes?"""
        told = [frame for frame in batch if frame.type in (*BEGINS, *ENDS, "WORKFLOW_PAUSED")]
        return await self._rests(told[-1]) if told else "unknown"

    async def _rests(self, frame: Frame) -> Rests:
        if frame.type != "WORKFLOW_PAUSED":
            return "now" if frame.type in ENDS else "no"
        row = await self._executions.get(self._scope, self._id)
        if row.state in ("ended", "idle"):
            return "now"
        if row.state != "waiting":
            return "no"
        return "now" if row.waiting_for in (*FOR_PEOPLE, MESSAGE) else "soon"

    def _state(self, frame: Frame) -> str | None:
        """The state that an entry brings, in the words of users."""
        return STATES.get(frame.type)

    def _at_rest(self, shown: dict[str, Any]) -> dict[str, Any]:
        """The summary for who has waited."""
        return shown

    async def _shown(self, place: Cursor) -> AsyncGenerator[list[Frame], None]:
        """The frames of the run and resume routes: states with the summary, and progress."""
        async with aclosing(self._until_rest(place)) as batches:
            async for batch in batches:
                shown = [found for frame in batch if (found := await self._show(frame)) is not None]
                if shown:
                    yield shown

    async def _show(self, frame: Frame) -> Frame | None:
        if (progress := _progress(frame)) is not None:
            return frame._replace(type="task.progress", data=progress)
        state = self._state(frame)
        if state is None:
            return None
        summary = await self._executions.summary(self._scope, self._id)
        if frame.type == "session_end" and summary["state"] != "CANCELLED":
            return None  # the workflow's own end has been told
        body = msgspec.json.encode(summary | {"state": state.upper()})
        return frame._replace(type=f"{summary['workflow_name']}.execution.{state}", data=body)


class SessionWaiter(Waiter):
    """Somebody who talks to an agent as to the workflow agents/agent_chat.

    `newest` is the entry that was admitted. `asks`: there are questions that it does not answer.
    """

    def __init__(
        self, request: Request, executions: Executions, scope: Scope, admitted: Admitted, newest: Any, *, asks: bool
    ) -> None:
        super().__init__(request, executions, scope, admitted)
        self._watch = RunWatch(newest.id if isinstance(newest, UserSaid) else None)
        self._works = isinstance(newest, UserSaid | InterruptAnswered) and not asks
        self._rested: int | None = None

    def _at_rest(self, shown: dict[str, Any]) -> dict[str, Any]:
        # The run may be about to rest, or the next one has begun: this one is over.
        over = self._rested is not None and shown["state"] not in history.FINISHED
        return shown | ({"state": "PAUSED"} if over else {})

    async def _judged(self, batch: list[Frame]) -> Rests:
        rests: Rests = "unknown"
        for frame in batch:
            if not frame.entry or self._rested is not None:
                continue
            if not self._works or self._watch.feed(decode(frame.data)) != "working":
                self._rested, rests = frame.cursor.seq, "now"
            elif frame.type == "run_started":
                rests = "no"
        return rests

    def _state(self, frame: Frame) -> str | None:
        if frame.entry and frame.cursor.seq == self._rested:
            return "cancelled" if frame.type == "session_end" else "paused"
        return SESSION_STATES.get(frame.type)


def _progress(frame: Frame) -> bytes | None:
    """What a frame of a task, or of an agent, tells as progress; None: nothing."""
    if frame.type not in PROGRESS:
        return None
    told = msgspec.json.decode(frame.data)
    match frame.type:
        case "progress":
            source, name, value = told["call"], told.get("name", ""), told["value"]
        case "token":
            source, name, value = told["message_id"], "", {"token": told["text"]}
        case _:
            shown = {key: told[key] for key in ("name", "status", "outcome", "text") if key in told}
            source, name = told["call"], told.get("name", "")
            value = {"type": frame.type, "id": told["call"], **shown}
    return msgspec.json.encode(
        {"type": "TASK_PROGRESS", "source_id": source, "name": name, "value": value, "time": history.iso(time.time())}
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
