"""A session as a client holds it: send, watch, answer; reconnects by itself and loses nothing."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import httpx

from flux.client.attaching import Attached
from flux.client.patience import patiently
from flux.client.reader import STREAM, Answered, Event, LogReader, Server
from flux.errors import ServerUnreachable, Unavailable
from flux.events import CompactDone, RunFailed
from flux.watch import RunWatch

T = TypeVar("T")

#: How long the end of an answer, of which all has come that counts, is waited for.
END_SECONDS = 0.05


class Said(NamedTuple):
    """A message that was accepted: its id, its place in the log, and whether its key was used before.

    `after` is the entry behind which its events begin; `state` is how the session stood, None for a repeated one.
    """

    message: str
    seq: int
    repeated: bool
    after: int
    state: str | None


class SessionHandle(LogReader):
    """A session on a server. `cursor` is how far this client has read; None: nothing was read yet.

    `accepted` is the id of the message that was sent last, None until the server has taken it.
    """

    def __init__(self, client: Server, id: str, cursor: str | None = None) -> None:
        super().__init__(client, f"/sessions/{id}", cursor)
        self.id = id
        self.accepted: str | None = None
        self._watch = RunWatch()

    async def info(self) -> dict[str, Any]:
        """The session's row.

        :raises SessionNotFound: there is none
        """
        return await self._client.get(f"/sessions/{self.id}")

    async def post(
        self, text: str, *, mode: str = "queue", model: str | None = None, key: str | None = None,
        files: Sequence[Attached] = (),
    ) -> dict[str, Any]:  # fmt: skip
        """Send a message, with images, PDFs and texts beside it; it is durable when this returns.

        `message` in the answer is its id.

        :raises SessionEnded, SessionBusy, TooLarge, IdempotencyMismatch: it was not accepted
        """
        body = {"message": text, "mode": mode, **_given(model=model, files=_bodies(files))}
        return await self._client.post(f"/sessions/{self.id}/messages", body, key=key)

    async def send(
        self, text: str, *, mode: str = "queue", model: str | None = None, key: str | None = None,
        files: Sequence[Attached] = (),
    ) -> AsyncGenerator[Event, None]:  # fmt: skip
        """Send a message and watch its run until it ends, or waits for a person.

        What lies behind the cursor comes first; a handle without one begins at the session's head. A message whose
        `key` was used before is not sent again: the events are those from that message on.

        :raises SessionEnded, SessionBusy, TooLarge, IdempotencyMismatch: it was not accepted
        :raises ServerUnreachable: the server stays away; whether it was accepted is not known
        """
        async with self.saying(text, mode=mode, model=model, key=key, files=files) as (_, events):
            async for event in events:
                yield event
                if self.state != "working":
                    return

    @asynccontextmanager
    async def saying(
        self, text: str, *, mode: str = "queue", model: str | None = None, key: str | None = None,
        agent: str | None = None, files: Sequence[Attached] = (),
    ) -> AsyncIterator[tuple[Said, AsyncGenerator[Event, None]]]:  # fmt: skip
        """Send a message over the connection that then tells its run, and what happens behind it.

        `agent` is whose session this has to be; None: anybody's.

        :raises FluxError: as for `send`
        :raises SessionNotFound: it is not one of that agent
        """
        self.accepted = None
        key = key or str(uuid.uuid4())  # the same each time: a server that goes away just now takes it once
        body = {"message": text, "mode": mode, **_given(model=model, agent=agent, files=_bodies(files))}
        headers = {**STREAM, "Idempotency-Key": key} | ({"Last-Event-ID": self.cursor} if self.cursor else {})
        answer = await _persistently(lambda: self._client.answered(f"{self._path}/messages", headers, body))
        self.cursor = answer.headers["flux-after"]
        said = _said(answer.headers)
        self.accepted, self._watch = said.message, RunWatch(said.message)
        async with (
            aclosing(answer),
            aclosing(self._live(self._to_the_end(answer))) as live,
            aclosing(self._watched(live)) as events,
        ):
            yield said, events

    async def _to_the_end(self, answer: Answered) -> AsyncGenerator[bytes, None]:
        """What tells a run: when the run rests nothing more comes, and a connection that was read out is used again."""
        chunks = answer.chunks()
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            if self.state != "working":
                with suppress(TimeoutError, httpx.TransportError):
                    async with asyncio.timeout(END_SECONDS):
                        async for _ in chunks:
                            pass
            await answer.aclose()

    async def compacting(self, *, key: str | None = None) -> AsyncGenerator[Event, None]:
        """Ask to summarise the older part of the history, and watch the run that does it until it ends.

        :raises SessionEnded, SessionBusy, IdempotencyMismatch: it was not accepted
        """
        await self._begin()
        async with aclosing(self._live()) as live:
            await anext(live)
            accepted = await self._client.post(f"/sessions/{self.id}/compact", key=key)
            self._watch = RunWatch(accepted["request"])
            async with aclosing(self._rest(live)) as events:
                async for event in events:
                    yield event

    async def compact(self, *, key: str | None = None) -> bool:
        """Summarise the older part of the history; False when there was nothing to do.

        :raises SessionEnded, SessionBusy, IdempotencyMismatch: it was not accepted
        :raises Unavailable: the model gave no summary, or somebody stopped the run
        """
        async with aclosing(self.compacting(key=key)) as events:
            async for _ in events:
                pass
        match self._watch.end:
            case CompactDone(compacted=compacted):
                return compacted
            case RunFailed(message=message):
                raise Unavailable(message)
        raise Unavailable("the history was not summarised: the run was stopped")

    async def until_rest(self) -> AsyncGenerator[Event, None]:
        """Watch the run that this handle follows until it ends, or waits for a person."""
        async with aclosing(self._live()) as live, aclosing(self._rest(live)) as events:
            async for event in events:
                yield event

    def watch(self, message: str) -> None:
        """Follow the run of a message that was posted; `until_rest` watches it from where this handle has read to."""
        self._watch = RunWatch(message)

    @property
    def state(self) -> str:
        """How the run this handle follows stands, as far as it was read: working, waiting or ended."""
        return self._watch.state

    async def answer(
        self, interrupt: str, decision: str, *, reason: str | None = None, always: bool = False, content: Any = None
    ) -> dict[str, Any]:
        """Answer a question; the first answer wins.

        :raises InterruptNotFound, InterruptDecided: there is no such open question
        """
        body = {"decision": decision, "reason": reason, "always": always, "content": content}
        return await self._client.post(f"/sessions/{self.id}/interrupts/{interrupt}", body)

    async def resolve(
        self,
        interrupt: str,
        decision: str,
        *,
        reason: str | None = None,
        always: bool = False,
        content: Any = None,
        session: str | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Answer a question and watch the run until it ends, or waits for a person again.

        `session` is the one that asks, when that is a child of this one. Answer the last open question this way:
        a run that still waits for others is not at rest before they are answered.

        :raises InterruptNotFound, InterruptDecided: there is no such open question
        """
        asking = self if session in (None, self.id) else SessionHandle(self._client, str(session))
        await self._begin()
        async with aclosing(self._live()) as live:
            await anext(live)
            await asking.answer(interrupt, decision, reason=reason, always=always, content=content)
            async with aclosing(self._rest(live)) as events:
                async for event in events:
                    yield event

    async def interrupts(self) -> list[dict[str, Any]]:
        """The open questions."""
        items: list[dict[str, Any]] = (await self._client.get(f"/sessions/{self.id}/interrupts"))["items"]
        return items

    def artifacts(self) -> AsyncGenerator[dict[str, Any], None]:
        """What the session keeps beside its log, oldest first: id, name, media_type, size, digest, created_at."""
        return self._client.pages(f"/sessions/{self.id}/artifacts")

    async def artifact(self, id: str) -> bytes:
        """The bytes of an artifact.

        :raises ArtifactNotFound: there is none
        """
        return await self._client.download(f"/sessions/{self.id}/artifacts/{quote(id, safe='')}")

    async def cancel(self) -> dict[str, Any]:
        """Stop the present run; the session stays usable."""
        return await self._client.post(f"/sessions/{self.id}/cancel")

    async def fork(self, at: int | None = None, *, name: str | None = None, key: str | None = None) -> SessionHandle:
        """A new session that begins as a copy of this one, up to and with the entry `at` (a seq); None: all of it.

        Its handle begins behind what was copied.

        :raises InvalidInput: the session has no entry `at`
        :raises SessionExists, IdempotencyMismatch: the name is taken, or the key was used with another body
        """
        row = await self._client.post(f"/sessions/{self.id}/fork", _given(at=at, name=name), key=key)
        return SessionHandle(self._client, row["id"], str(row["seq"]))

    async def export(self, format: str = "jsonl") -> AsyncGenerator[bytes, None]:
        """The session as a file, piece by piece: "jsonl", which `flux.export.read_jsonl` reads, or "markdown".

        :raises SessionNotFound: there is none
        :raises ServerUnreachable: the connection broke; what came is not the whole
        """
        try:
            async with aclosing(
                self._client.stream(f"/sessions/{self.id}/export?format={quote(format)}", {})
            ) as pieces:
                async for piece in pieces:
                    if piece:
                        yield piece
        except httpx.TransportError as error:
            raise ServerUnreachable("the connection to the server broke; the file is not whole") from error

    async def rename(self, title: str) -> dict[str, Any]:
        """Change the title; the session's row."""
        return await self._client.put(f"/sessions/{self.id}/name", {"name": title})

    async def stop(self) -> dict[str, Any]:
        """End the session for good."""
        return await self._client.post(f"/sessions/{self.id}/stop")

    async def _begin(self) -> None:
        """Without a cursor: what has happened before now is not asked for."""
        if self.cursor is None:
            self.cursor = str((await self.info())["head"])

    async def _rest(self, live: AsyncGenerator[Event | None, None]) -> AsyncGenerator[Event, None]:
        async with aclosing(self._watched(live)) as events:
            async for event in events:
                yield event
                if self.state != "working":
                    return

    async def _watched(self, live: AsyncGenerator[Event | None, None]) -> AsyncGenerator[Event, None]:
        async for event in live:
            if event is not None:
                if event.seq is not None:
                    self._watch.feed(event.event)
                yield event


async def _persistently(send: Callable[[], Awaitable[T]]) -> T:
    """Send what may be sent again. A server that was not there from the beginning is not waited for.

    :raises ServerUnreachable: it was not there, or stays away
    """
    try:
        return await send()
    except (ServerUnreachable, Unavailable) as error:
        if isinstance(error.__cause__, httpx.ConnectError):
            raise
        return await patiently(send)


def _bodies(files: Sequence[Attached]) -> list[dict[str, str]] | None:
    return [file.body() for file in files] or None


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _said(headers: Mapping[str, str]) -> Said:
    """What an answer that is a stream says of its message."""
    return Said(
        headers["flux-message"],
        int(headers["flux-seq"]),
        headers["flux-repeated"] == "true",
        seq_of(headers["flux-after"]),
        headers.get("flux-state"),
    )


def seq_of(cursor: str | None) -> int:
    """The entry up to which a cursor has read."""
    return int((cursor or "0").partition(".")[0])
