"""What a request does in a session: send a message or answer a question, and then tell what the run does."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, suppress
from typing import Any

import msgspec
from msgspec import Struct

from flux.client import Event, FluxClient, SessionHandle
from flux.client.patience import patiently
from flux.client.session import Said
from flux.errors import (
    FluxError,
    InterruptDecided,
    InterruptNotFound,
    InvalidInput,
    SessionNotFound,
    Unavailable,
)
from flux.events import QUESTIONS, InputRequired, InterruptAnswered, Mode, Paused, Question, RunStarted, decode
from flux.surfaces.api.telling import OfAnswer, OfMessage, Telling
from flux.surfaces.frames import Frame, error_frame

PAGE = 200
DECLINED = "The person declined to answer."

_ID = re.compile(r"[0-9a-fA-F-]{1,64}")


class Caller(Struct, frozen=True):
    """Who asks, and which agent is served; `model` answers instead of the agent's own."""

    client: FluxClient
    agent: str
    model: str | None = None


class Answer(Struct, frozen=True):
    """An answer to the question `given`: its own id, that of its call, or that of its elicitation."""

    given: str
    decision: str
    reason: str | None = None
    always: bool = False
    content: Any = None


class Message(Struct, frozen=True):
    """A message to send; the same `key` sends it once."""

    text: str
    mode: Mode = "queue"
    key: str | None = None


async def chat(
    caller: Caller, stack: AsyncExitStack, session: str | None, said: Message
) -> AsyncGenerator[bytes, None]:
    """Send a message, in a new session unless one is named; the frames of its run. It is durable when this returns.

    The same `key` attaches to the message's run and tells it from its beginning. `stack` keeps the connection.

    :raises FluxError: it was not accepted
    """
    key, ours = said.key, derived(said.key, "message")
    handle = await _opened(caller, session, key)

    def saying() -> AbstractAsyncContextManager[tuple[Said, AsyncGenerator[Event, None]]]:
        return handle.saying(said.text, mode=said.mode, model=caller.model, key=ours, agent=caller.agent)

    try:
        sent, events = await patiently(lambda: stack.enter_async_context(saying()))
    except FluxError:
        if session is None:
            with suppress(FluxError):
                await caller.client.discard(handle.id)
        raise
    attached = sent.repeated and key is not None
    # Of a run that is waited for, what it did before the message counts for nothing.
    past = [] if attached or sent.state == "idle" else await _present_run(caller.client, handle.id, sent.after)
    telling = OfMessage(caller.agent, past, sent.message, attached=attached, joins=said.mode == "steer")
    return _stream(handle.id, telling, [], events)


async def _opened(caller: Caller, session: str | None, key: str | None) -> SessionHandle:
    """The session to talk in: that one, which is not looked at, or a new one."""
    if session is None:
        created = derived(key, "session")
        return await patiently(lambda: caller.client.start_session(caller.agent, key=created))
    if not _ID.fullmatch(session):
        raise SessionNotFound(f"there is no session {session[:80]!r}")
    return caller.client.session(session)


async def answer(caller: Caller, stack: AsyncExitStack, session: str, said: Answer) -> AsyncGenerator[bytes, None]:
    """Answer a question; the frames of the run from then on.

    :raises InvalidInput: the session has no such question, or it takes no such answer
    :raises InterruptDecided: it is closed
    """
    handle, past = await open_session(caller, session)
    asked = _find(past, said.given)
    said = _fitting(asked, said)
    interrupt = asked.id if asked is not None else said.given
    telling = OfAnswer(caller.agent, past, interrupt)
    events = await stack.enter_async_context(handle.connected())
    answered = await patiently(lambda: _answered(handle, interrupt, said))
    backlog: list[Any] = []
    if answered["repeated"] and not telling.is_open(interrupt):
        before, backlog = _split(past, interrupt)
        telling = OfAnswer(caller.agent, before, interrupt)
    return _stream(handle.id, telling, backlog, events)


async def open_session(caller: Caller, id: str) -> tuple[SessionHandle, list[Any]]:
    """A session of the agent, and what its present run has done so far.

    :raises SessionNotFound: there is none
    """
    handle = await _opened(caller, id, None)
    row = await patiently(handle.info)
    if row["agent_name"] != caller.agent:
        raise SessionNotFound(f"session {id} is not one of {caller.agent}")
    handle.cursor = str(row["head"])
    return handle, await _present_run(caller.client, id, row["head"])


def derived(key: str | None, part: str) -> str:
    """The idempotency key of one of the calls that a request makes; without a key of its own, a new one."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{part}/{key}")) if key else str(uuid.uuid4())


def encode(frame: Frame) -> bytes:
    """A frame on the wire. JSON holds no raw line breaks, so one data line is enough."""
    return b"data: %b\n\n" % msgspec.json.encode(frame)


async def _stream(
    id: str, telling: Telling, backlog: Iterable[Any], events: AsyncGenerator[Event, None]
) -> AsyncGenerator[bytes, None]:
    yield encode({"type": "session_id", "id": id})
    try:
        async with aclosing(_behind(backlog, events)) as all_of_it:
            async for event in all_of_it:
                frames = telling.feed(event)
                if frames:
                    yield b"".join(map(encode, frames))
                if telling.done:
                    return
    except FluxError as error:
        yield encode(error_frame(str(error), retryable=isinstance(error, Unavailable)))


async def _behind(backlog: Iterable[Any], events: AsyncGenerator[Event, None]) -> AsyncGenerator[Any, None]:
    """Entries that were read before, then what comes."""
    for entry in backlog:
        yield entry
    async with aclosing(events):
        async for event in events:
            yield event.event


async def _present_run(client: FluxClient, session: str, head: int) -> list[Any]:
    """The entries of the newest run, up to `head`."""
    rows: list[Any] = []
    after = head
    while after > 0 and not any(isinstance(row, RunStarted) for row in rows):
        upto, after = after, max(0, after - PAGE)
        page = await client.get(f"/sessions/{session}/events", after=after, limit=upto - after)
        rows = [*(decode(msgspec.json.encode(item)) for item in page["items"]), *rows]
    begins = [index for index, row in enumerate(rows) if isinstance(row, RunStarted)]
    return rows[begins[-1] :] if begins else rows


def _find(past: Iterable[Any], given: str) -> Question | None:
    """The newest question that is meant."""
    found = None
    for entry in past:
        if isinstance(entry, QUESTIONS) and given in (entry.id, entry.call, getattr(entry, "elicitation_id", None)):
            found = entry
    return found


def _fitting(asked: Question | None, said: Answer) -> Answer:
    """The answer in the words that its kind of question takes."""
    takes_words = isinstance(asked, InputRequired | Paused)
    if not takes_words or said.decision not in ("accept", "decline", "cancel"):
        return said
    if said.decision != "accept":
        return msgspec.structs.replace(said, decision="answer", content=DECLINED)
    if said.content is None and isinstance(asked, InputRequired):
        raise InvalidInput('this question takes words: add the answer as "content"')
    return msgspec.structs.replace(said, decision="answer")


async def _answered(handle: SessionHandle, interrupt: str, said: Answer) -> dict[str, Any]:
    if not _ID.fullmatch(interrupt):
        raise InvalidInput(f"session {handle.id} asks no question {interrupt[:80]!r}")
    try:
        return await handle.answer(
            interrupt, said.decision, reason=said.reason, always=said.always, content=said.content
        )
    except InterruptNotFound as error:
        raise InvalidInput(f"session {handle.id} asks no question {said.given[:80]!r}") from error


def _split(past: list[Any], interrupt: str) -> tuple[list[Any], list[Any]]:
    """What came before the answer to a question, and the rest.

    :raises InterruptDecided: it was answered in an earlier run
    """
    for index, entry in enumerate(past):
        if isinstance(entry, InterruptAnswered) and entry.id == interrupt:
            return past[:index], past[index:]
    raise InterruptDecided()
