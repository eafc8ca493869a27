"""A response that passes on the events of the server, byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress

import httpx
from starlette.types import Receive, Scope, Send

from flux.http.streaming import HEARTBEAT_SECONDS, Streaming, first_done, gone


class Relay(Streaming):
    """Passes on what comes until it ends, its connection is lost, the reader leaves, or `closing` is set.

    A slow reader slows down `chunks` alone. Heartbeats are among them. `headers` stand in place of those of events.
    """

    def __init__(
        self, chunks: AsyncGenerator[bytes, None], closing: asyncio.Event, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(closing, HEARTBEAT_SECONDS, headers)
        if headers is not None:
            self._common = []
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send; close the source when either side is done."""
        async with aclosing(self._chunks):
            await self._start(send)
            leaving = asyncio.create_task(gone(receive))
            done = await first_done(
                asyncio.create_task(self._pump(send)), leaving, asyncio.create_task(self._closing.wait())
            )
            for task in done:
                task.result()
        if leaving not in done:
            await self._finish(send)

    async def _pump(self, send: Send) -> None:
        with suppress(httpx.TransportError):
            async for chunk in self._chunks:
                await self._send(send, chunk)
