"""A thousand readers of one session: memory, and how long one event takes to reach all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

from flux.client import FluxClient
from tests.benchmarks import replay
from tests.benchmarks.children import Child, flux_server, replaying
from tests.benchmarks.frame import Row, Size, median, ms
from tests.benchmarks.talk import make_agent, sessions

RAW = "bare writes of the same bytes"
HEADERS = b"text/event-stream"
AT_A_TIME = 100
SECONDS = 60


class Readers:
    """Open streams; knows which of them have received the bytes that are expected."""

    def __init__(self) -> None:
        self.transports: set[asyncio.BaseTransport] = set()
        self.last = b""
        self._expected = HEADERS
        self._missing: set[asyncio.BaseTransport] = set()
        self._complete = asyncio.Event()

    def expect(self, expected: bytes) -> None:
        """From now on every reader shall receive these bytes."""
        self._expected = expected
        self._missing = set(self.transports)
        self._complete.clear()

    async def complete(self) -> None:
        """Return when every reader has."""
        async with asyncio.timeout(SECONDS):
            await self._complete.wait()

    def add(self, transport: asyncio.BaseTransport) -> None:
        """One more, which shall receive what is expected too."""
        self.transports.add(transport)
        self._missing.add(transport)
        self._complete.clear()

    def received(self, transport: asyncio.BaseTransport, data: bytes) -> None:
        """Note what a reader got."""
        if self._expected in data:
            self.last = data
            self._missing.discard(transport)
            if not self._missing:
                self._complete.set()


class _Reader(asyncio.Protocol):
    def __init__(self, readers: Readers, request: bytes) -> None:
        self._readers = readers
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._readers.add(transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._readers.received(self._transport, data)


class Delivered(NamedTuple):
    """Median seconds until all readers had an event, the server's CPU seconds per event, and its megabytes."""

    wall: float
    cpu: float
    rss: float


async def measure(size: Size, home: Path) -> list[Row]:
    """A server that only serves, so that a message is one event and starts nothing."""
    home.mkdir(exist_ok=True)
    async with flux_server(home / "flux", "--no-worker") as server, FluxClient(server.url) as client:
        await make_agent(client)
        (session,) = await sessions(client, 1)
        empty = server.rss()
        async with reading(server, events(f"/sessions/{session.id}/events"), size.readers) as readers:
            found = await _deliver(server, readers, f"/sessions/{session.id}/messages", size.events)
            frame = readers.last.split(b"\r\n")[1]
    async with (
        replaying(replay.save(home / "event.json", [frame])) as server,
        reading(server, events("/sessions/raw/events"), size.readers) as readers,
    ):
        raw = await _deliver(server, readers, "/all", size.events, same=b"event: ")
    name = f"{size.readers:,} readers"
    return [
        Row(name=f"{name}: memory", figure=found.rss, unit="MB", limit=empty, limit_is="before them", target=120.0),
        Row(
            name=f"{name}: one event to all, median", figure=ms(found.wall), unit="ms", limit=ms(raw.wall), limit_is=RAW
        ),
        Row(name=f"{name}: CPU per event", figure=ms(found.cpu), unit="ms", limit=ms(raw.cpu), limit_is=RAW),
    ]


@asynccontextmanager
async def reading(server: Child, request: bytes, count: int) -> AsyncIterator[Readers]:
    """So many open streams, each begun by the same request."""
    place = urlsplit(server.url)
    readers = Readers()
    loop = asyncio.get_running_loop()
    try:
        while (missing := count - len(readers.transports)) > 0:
            opening = (
                loop.create_connection(lambda: _Reader(readers, request), place.hostname or "", place.port or 0)
                for _ in range(min(AT_A_TIME, missing))
            )
            await asyncio.gather(*opening)
            await readers.complete()
        yield readers
    finally:
        for transport in readers.transports:
            transport.close()


def events(path: str) -> bytes:
    """A request for the events of a session."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()


async def _deliver(server: Child, readers: Readers, path: str, count: int, same: bytes | None = None) -> Delivered:
    """Send events and wait for each to arrive everywhere; `same`: what every event contains, else each its own."""
    seconds: list[float] = []
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        before = server.cpu()
        for n in range(count):
            text = f"message-{n}-"
            readers.expect(same or text.encode())
            began = time.perf_counter()
            (await http.post(path, json={"message": text})).raise_for_status()
            await readers.complete()
            seconds.append(time.perf_counter() - began)
        return Delivered(median(seconds), (server.cpu() - before) / count, server.rss())
