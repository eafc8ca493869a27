"""/sessions: talking to agents."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from flux.agents.service.exporting import Format, exported
from flux.agents.service.sessions import Sessions
from flux.engine.intake.answers import Admitted, Decision
from flux.engine.intake.inputs import NewMessage
from flux.engine.service.identity import TALK
from flux.errors import InvalidInput, SessionNotFound
from flux.events import CompactRequested, UserSaid, decode
from flux.server.attached import parts_of
from flux.server.context import events_page, limits_of, process_of, scope_of, stream, wants_events
from flux.server.rbac import check
from flux.server.rules import REGISTER
from flux.server.sse import Begun
from flux.server.wire import (
    AnswerInterrupt,
    ForkSession,
    Limit,
    Rename,
    SendMessage,
    StartSession,
    decode_cursor,
    encode_cursor,
    interrupt_row,
    message_row,
    page,
    session_row,
)
from flux.store.database import Scope
from flux.store.executions import State
from flux.store.feed import Cursor, Frame
from flux.watch import RunWatch

router = APIRouter(tags=["sessions"])

Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=256)]
EVENTS = {200: {"content": {"text/event-stream": {}}, "description": "The events of the run, until it rests"}}

#: Media type and ending of the file of each format.
FILES = {"jsonl": ("application/x-ndjson", "jsonl"), "markdown": ("text/markdown; charset=utf-8", "md")}
EXPORTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/x-ndjson": {}, "text/markdown": {}}, "description": "The file"}
}
#: Nothing in a browser runs it, and no proxy gathers it.
EXPORTED = {"X-Content-Type-Options": "nosniff", "X-Accel-Buffering": "no", "Cache-Control": "no-store"}


@router.post("/sessions", status_code=201)
async def start_session(request: Request, body: StartSession, key: Key = None) -> dict[str, Any]:
    """Start a session; with a message, its first run begins."""
    # A directory is chosen by who may run code there anyway.
    check(request, TALK, "agent:{agent}:start", *([REGISTER] if body.workspace else []), agent=body.agent)
    sessions, scope = process_of(request).sessions, scope_of(request)
    beside = parts_of(body.images, body.files)
    if beside and not body.message:
        raise InvalidInput("images and files stand beside a message: add one")
    message = NewMessage(body.message, options=_options(body.model), beside=beside) if body.message else None
    admitted = await sessions.start(
        scope, body.agent, message, instance=body.instance, name=body.name, workspace=body.workspace, key=key
    )
    row = await sessions.get(scope, admitted.id)
    return session_row(row) | {"seq": admitted.seq, "repeated": admitted.repeated}


@router.get("/sessions")
async def list_sessions(
    request: Request,
    agent: str | None = None,
    state: State | None = None,
    instance: str | None = None,
    q: str | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Sessions, newest first; `q` searches titles and texts."""
    after = decode_cursor(cursor, float, str)
    found = await process_of(request).sessions.page(
        scope_of(request),
        agent=agent,
        state=state,
        instance=instance,
        q=q,
        after=(after[0], after[1]) if after else None,
        limit=limit + 1,
    )
    more = encode_cursor(found[limit - 1].created, found[limit - 1].id) if len(found) > limit else None
    return page([session_row(row) for row in found[:limit]], more)


@router.get("/sessions/{id}")
async def get_session(request: Request, id: str) -> dict[str, Any]:
    """One session."""
    return session_row(await process_of(request).sessions.get(scope_of(request), id))


@router.get("/sessions/{id}/events", response_model=None, responses=EVENTS)  # type: ignore[arg-type]
async def session_events(
    request: Request,
    id: str,
    after: str = "0",
    cursor: str | None = None,
    limit: Limit = 100,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """The log behind `after`, or `cursor`: a page of JSON, or by Accept a stream that stays open."""
    sessions, scope = process_of(request).sessions, scope_of(request)
    place = Cursor.parse(last_event_id or cursor or after)
    if wants_events(request):
        await sessions.get(scope, id)
        return stream(request, sessions.follow(scope, id, place))
    return events_page(await sessions.entries(scope, id, place.seq, limit + 1), limit)


@router.get("/sessions/{id}/messages")
async def session_messages(
    request: Request, id: str, after: str = "0", cursor: str | None = None, limit: Limit = 100
) -> dict[str, Any]:
    """What was said and done: messages and tool results among the next entries behind `after`, or `cursor`."""
    place = Cursor.parse(cursor or after)
    rows = await process_of(request).sessions.entries(scope_of(request), id, place.seq, limit + 1)
    said = [message for row in rows[:limit] if (message := message_row(row)) is not None]
    return page(said, str(rows[limit - 1].seq) if len(rows) > limit else None)


@router.post("/sessions/{id}/messages", status_code=202, response_model=None, responses=EVENTS)  # type: ignore[arg-type]
async def send_message(
    request: Request,
    id: str,
    body: SendMessage,
    key: Key = None,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """Send a message: 202 when it is durable, or by Accept its events until its run rests.

    Those begin behind Last-Event-ID, or where the session was; headers say which it is, and where that is.
    """
    sessions, scope = process_of(request).sessions, scope_of(request)
    message = NewMessage(body.message, body.mode, _options(body.model), parts_of(body.images, body.files))
    row = await sessions.get(scope, id)
    if body.agent not in (None, row.agent):
        raise SessionNotFound(f"session {id} is not one of {str(body.agent)[:80]}")
    if not wants_events(request):
        admitted = await sessions.say(scope, row, message, key=key)
        return _accepted(admitted, message=await _said(sessions, scope, admitted))
    limits_of(request).check_reader(scope)
    # The reader is there before the message: however fast the answer is, it is seen piece by piece.
    place = Cursor.parse(last_event_id) if last_event_id else Cursor(row.head)
    async with AsyncExitStack() as unread:
        begun = await Begun.reading(sessions.follow(scope, id, place))
        unread.push_async_callback(begun.aclose)
        admitted = await sessions.say(scope, row, message, key=key)
        said = await _said(sessions, scope, admitted)
        if not admitted.repeated:
            unread.pop_all()
            told = _accepted_as(admitted, said, place) | {"Flux-State": row.state}
            return stream(request, _until_rest(begun.rest(), RunWatch(said)), told)
    place = min(place, Cursor(admitted.seq - 1))
    before = sessions.follow(scope, id, place)
    return stream(request, _until_rest(before, RunWatch(said)), _accepted_as(admitted, said, place))


@router.get("/sessions/{id}/interrupts")
async def list_interrupts(request: Request, id: str) -> dict[str, Any]:
    """The open questions of a session."""
    found = await process_of(request).sessions.interrupts(scope_of(request), id)
    return page([interrupt_row(asked) for asked in found], None)


@router.post("/sessions/{id}/interrupts/{iid}", status_code=202)
async def answer_interrupt(request: Request, id: str, iid: str, body: AnswerInterrupt) -> Response:
    """Answer a question; the first answer wins."""
    decision = Decision(body.decision, body.reason, body.always, body.content)
    return _accepted(await process_of(request).sessions.answer(scope_of(request), id, iid, decision))


@router.post("/sessions/{id}/cancel", status_code=202)
async def cancel_run(request: Request, id: str) -> Response:
    """Stop the present run and keep the session."""
    admitted = await process_of(request).sessions.cancel(scope_of(request), id)
    if admitted is None:
        return JSONResponse({"id": id, "cancelled": False}, 202)
    return _accepted(admitted, cancelled=True)


@router.post("/sessions/{id}/compact", status_code=202)
async def compact_session(request: Request, id: str, key: Key = None) -> Response:
    """Summarise the older part of the history; a run does it, whose input has the id `request`."""
    sessions, scope = process_of(request).sessions, scope_of(request)
    admitted = await sessions.compact(scope, id, key=key)
    return _accepted(admitted, request=await _said(sessions, scope, admitted))


@router.post("/sessions/{id}/stop", status_code=202)
async def stop_session(request: Request, id: str) -> Response:
    """End the session for good."""
    return _accepted(await process_of(request).sessions.end(scope_of(request), id))


@router.post("/sessions/{id}/fork", status_code=201)
async def fork_session(request: Request, id: str, body: ForkSession | None = None, key: Key = None) -> dict[str, Any]:
    """Start a session that begins as a copy of this one, up to and with the entry `at`."""
    sessions, scope = process_of(request).sessions, scope_of(request)
    wanted = body or ForkSession()
    forked = await sessions.fork(scope, id, wanted.at, name=wanted.name, key=key)
    return session_row(await sessions.get(scope, forked.id)) | {"seq": forked.seq, "repeated": forked.repeated}


@router.get("/sessions/{id}/export", response_class=StreamingResponse, responses=EXPORTS)
async def export_session(request: Request, id: str, format: Format = "jsonl") -> StreamingResponse:
    """The whole session as a file: JSON lines, one for each entry, or Markdown."""
    process, scope = process_of(request), scope_of(request)
    row = session_row(await process.sessions.get(scope, id))
    media_type, suffix = FILES[format]
    pieces = exported(process.database, scope, row, format)
    headers = {"Content-Disposition": f'attachment; filename="session-{row["id"]}.{suffix}"', **EXPORTED}
    return StreamingResponse(pieces, media_type=media_type, headers=headers)


@router.put("/sessions/{id}/name")
async def rename_session(request: Request, id: str, body: Rename) -> dict[str, Any]:
    """Change the title."""
    sessions, scope = process_of(request).sessions, scope_of(request)
    await sessions.rename(scope, id, body.name)
    return session_row(await sessions.get(scope, id))


@router.delete("/sessions/{id}", status_code=204)
async def delete_session(request: Request, id: str) -> None:
    """Remove a session and its log: an ended one, or one in which nothing was ever said."""
    process, scope = process_of(request), scope_of(request)
    await process.instances.forget(scope, id)
    await process.sessions.delete(scope, id)


@router.get("/agents/sessions")
async def list_agent_sessions(
    request: Request, state: State | None = None, q: str | None = None, limit: Limit = 50, cursor: str | None = None
) -> dict[str, Any]:
    """Sessions of all agents."""
    return await list_sessions(request, state=state, q=q, limit=limit, cursor=cursor)


@router.get("/agents/{name}/sessions")
async def list_sessions_of(
    request: Request,
    name: str,
    state: State | None = None,
    q: str | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Sessions of one agent."""
    return await list_sessions(request, agent=name, state=state, q=q, limit=limit, cursor=cursor)


async def _said(sessions: Sessions, scope: Scope, admitted: Admitted) -> str | None:
    """The id of the message, or of the request, that was admitted."""
    if admitted.input is not None:
        return admitted.input
    rows = await sessions.entries(scope, admitted.id, admitted.seq - 1, 1)
    entry = decode(rows[0].body)
    return entry.id if isinstance(entry, UserSaid | CompactRequested) else None


async def _until_rest(batches: AsyncGenerator[list[Frame], None], watch: RunWatch) -> AsyncGenerator[list[Frame], None]:
    """The frames up to and with the one after which the run waits or has ended."""
    async with aclosing(batches):
        async for batch in batches:
            for index, frame in enumerate(batch, 1):
                if frame.entry and watch.feed(decode(frame.data)) != "working":
                    yield batch[:index]
                    return
            yield batch


def _accepted_as(admitted: Admitted, message: str | None, place: Cursor) -> dict[str, str]:
    """What an answer that is a stream says of its message, and where its events begin, in headers."""
    return {
        "Flux-Message": message or "",
        "Flux-Seq": str(admitted.seq),
        "Flux-Repeated": str(admitted.repeated).lower(),
        "Flux-After": str(place),
    }


def _accepted(admitted: Admitted, **more: Any) -> JSONResponse:
    return JSONResponse({"id": admitted.id, "seq": admitted.seq, "repeated": admitted.repeated, **more}, 202)


def _options(model: str | None) -> dict[str, Any]:
    return {"model": model} if model else {}
