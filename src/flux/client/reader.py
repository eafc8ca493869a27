"""Reading a log over HTTP: everything behind a cursor, and then what happens, whatever the connection does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple, Protocol

import httpx
import msgspec
from msgspec import Struct

from flux.client.sse import Parser, ServerEvent
from flux.deltas import DELTA_TYPES, decode_delta
from flux.errors import ServerUnreachable, Unavailable
from flux.events import DeltaEvent, Entry, UnknownEntry, decode

#: Seconds to wait after the n-th connection in a row that failed or ended; then it gives up.
RECONNECT = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
STREAM = {"Accept": "text/event-stream"}


class Event(Struct, frozen=True):
    """One event of a session: a durable entry with its `seq`, or a delta (`seq` None).

    `cursor` resumes behind it. `at` is in seconds since the epoch, 0.0 for deltas.
    """

    cursor: str
    event: Entry | UnknownEntry | DeltaEvent
    seq: int | None = None
    run: str | None = None
    at: float = 0.0


class _Place(Struct):
    seq: int
    run_id: str | None = None
    at: float = 0.0


class Answered(NamedTuple):
    """A response that has begun: its headers, the bytes of its body as they come, and how to close it."""

    headers: Mapping[str, str]
    chunks: Callable[[], AsyncIterator[bytes]]
    aclose: Callable[[], Awaitable[None]]


class Server(Protocol):
    """What a handle needs of a client."""

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        """GET a JSON object."""
        ...

    async def post(self, path: str, body: Any = None, *, key: str | None = None, **query: Any) -> dict[str, Any]:
        """POST a JSON object."""
        ...

    async def put(self, path: str, body: Any, **query: Any) -> dict[str, Any]:
        """PUT a JSON object."""
        ...

    async def request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Any other call."""
        ...

    async def upload(self, path: str, name: str, content: bytes) -> dict[str, Any]:
        """POST a file as a form."""
        ...

    async def download(self, path: str) -> bytes:
        """GET bytes."""
        ...

    def pages(self, path: str, **query: Any) -> AsyncGenerator[dict[str, Any], None]:
        """Every item of a list."""
        ...

    def stream(self, path: str, headers: dict[str, str]) -> AsyncGenerator[bytes, None]:
        """The bytes of a response as they come."""
        ...

    async def wait(self, path: str, body: Any, key: str | None = None) -> dict[str, Any]:
        """POST what may take as long as a run does."""
        ...

    async def posted(self, path: str, headers: dict[str, str], body: Any) -> Answered:
        """POST a JSON object, and get the answer as it comes."""
        ...

    async def answered(self, path: str, headers: dict[str, str], body: Any) -> Answered:
        """POST a JSON object whose answer is a stream."""
        ...


class LogReader:
    """A log on a server, at `path`. `cursor` is how far this client has read; None: nothing was read yet."""

    def __init__(self, client: Server, path: str, cursor: str | None = None) -> None:
        self.cursor = cursor
        self._client = client
        self._path = path

    async def events(self, first: AsyncIterator[bytes] | None = None) -> AsyncGenerator[Event, None]:
        """Everything behind the cursor, and then what happens, for as long as the caller reads.

        The first connection may be another one that begins at the cursor.

        :raises ServerUnreachable: the server stays away
        :raises FluxError: the server refuses
        """
        async with aclosing(self._live(None if first is None else _generator(first))) as live:
            async for event in live:
                if event is not None:
                    yield event

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[AsyncGenerator[Event, None]]:
        """The events behind the cursor over a connection that is there already: what begins now is seen from its start.

        :raises ServerUnreachable, FluxError: as for `events`
        """
        async with aclosing(self._live()) as live:
            await anext(live)
            async with aclosing(_told(live)) as events:
                yield events

    async def _live(self, first: AsyncGenerator[bytes, None] | None = None) -> AsyncGenerator[Event | None, None]:
        """What is behind the cursor and then happens; None when a connection was made or lost.

        The first connection may be another one that begins at the cursor.
        """
        failures = 0
        while True:
            parser = Parser()
            lost: Exception | None = None
            opened, first = first, None
            try:
                async with aclosing(opened or self._stream()) as chunks:
                    async for chunk in chunks:
                        failures = 0
                        if not chunk:
                            yield None
                        for event in parser.feed(chunk):
                            self.cursor = event.id
                            yield _typed(event)
            except (httpx.TransportError, Unavailable) as error:
                lost = error
            if failures == len(RECONNECT):
                raise ServerUnreachable("the connection to the server was lost; the work goes on there") from lost
            yield None
            await asyncio.sleep(RECONNECT[failures])
            failures += 1

    def _stream(self) -> AsyncGenerator[bytes, None]:
        return self._client.stream(f"{self._path}/events", {**STREAM, "Last-Event-ID": self.cursor or "0"})


async def _generator(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        yield chunk


async def _told(live: AsyncGenerator[Event | None, None]) -> AsyncGenerator[Event, None]:
    async for event in live:
        if event is not None:
            yield event


def _typed(event: ServerEvent) -> Event:
    if event.type in DELTA_TYPES:
        return Event(event.id, decode_delta(event.data))
    place = msgspec.json.decode(event.data, type=_Place)
    return Event(event.id, decode(event.data), place.seq, place.run_id, place.at)
