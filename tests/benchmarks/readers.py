"""A thousand readers of one session: memory, and how long one event takes to reach all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from flux.client import FluxClient
from tests.benchmarks import replay
from tests.benchmarks.children import Child, flux_server, replaying
from tests.benchmarks.frame import Row, Size, Spent, median, ms, spent
from tests.benchmarks.talk import make_agent, sessions

RAW = "bare writes of the same bytes"
AT_A_TIME = 100


class Readers:
    """Counts which connections have received since the last `expect`."""

    def __init__(self) -> None:
        self.transports: set[asyncio.BaseTransport] = set()
        self._missing: set[object] = set()
        self._all = asyncio.Event()
        self.last = b""

    def expect(self) -> None:
        """From now on every reader shall receive something."""
        self._missing = set(self.transports)
        self._all.clear()

    async def complete(self) -> None:
        """Return when every reader has."""
        async with asyncio.timeout(60):
            await self._all.wait()

    def received(self, transport: object, data: bytes) -> None:
        """Note what a reader got."""
        self.last = data
        self._missing.discard(transport)
        if not self._missing:
            self._all.set()


class _Reader(asyncio.Protocol):
    def __init__(self, readers: Readers, request: bytes) -> None:
        self._readers = readers
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._readers.transports.add(transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._readers.received(self._transport, data)


@asynccontextmanager
async def reading(server: Child, session: str, count: int) -> AsyncIterator[Readers]:
    """So many open streams of a session, each of which has had its first bytes."""
    place = urlsplit(server.url)
    readers = Readers()
    request = (
        f"GET /sessions/{session}/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    try:
        while len(readers.transports) < count:
            before = set(readers.transports)
            opening = min(AT_A_TIME, count - len(before))
            await asyncio.gather(
                *(
                    loop.create_connection(lambda: _Reader(readers, request), place.hostname, place.port)
                    for _ in range(opening)
                )
            )
            readers.expect_only(readers.transports - before)
            await readers.complete()
        yield readers
    finally:
        for transport in readers.transports:
            transport.close()
