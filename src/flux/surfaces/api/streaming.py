"""A response of server-sent events that collects ahead of a slow reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from starlette.types import Receive, Scope, Send

from flux.http.streaming import HEARTBEAT_SECONDS, Streaming, first_done, gone

#: Pieces that may wait for a slow reader before the source has to wait too.
AHEAD = 100


class Stream(Streaming):
    """Sends pieces until they end, the reader leaves, or `closing` is set: then `farewell` is the last one.

    `source` is closed at the end, whoever made it; `heartbeat` is in seconds.
    """

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], source: AsyncExitStack, closing: asyncio.Event, *,
        farewell: bytes = b"", heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:  # fmt: skip
        super().__init__(closing, heartbeat)
        self._pieces = pieces
        self._source = source
        self._farewell = farewell
        self._waiting: list[bytes] = []
        self._changed = asyncio.Event()
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send; close the source when either side is done."""
        async with self._source:
            await self._start(send)
            # The pump is the first to be stopped, and last to be heard: what it raised counts when all was sent.
            pumping = asyncio.create_task(self._pump())
            sending = asyncio.create_task(self._send_all(send))
            leaving, closing = asyncio.create_task(gone(receive)), asyncio.create_task(self._closing.wait())
            beating = asyncio.create_task(self._heartbeat(send))
            try:
                done = await first_done(sending, leaving, closing, beating)
            finally:
                pumping.cancel()
                await asyncio.gather(pumping, return_exceptions=True)
            if leaving in done:
                return
            if sending in done:
                sending.result()
                pumping.result()
            else:
                await self._send(send, self._farewell)
            await self._finish(send)

    async def _pump(self) -> None:
        """Collect pieces. Those that are there at once go out together."""
        try:
            async with aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    self._waiting.append(piece)
                    self._changed.set()
                    while len(self._waiting) >= AHEAD:
                        await self._change()
        finally:
            self._ended = True
            self._changed.set()

    async def _send_all(self, send: Send) -> None:
        while self._waiting or not self._ended:
            if not self._waiting:
                await self._change()
                continue
            pieces, self._waiting = self._waiting, []
            await self._send(send, b"".join(pieces))
            self._changed.set()

    async def _change(self) -> None:
        """Wait until more or less is waiting. Only one side ever does: the other would have nothing, or too much."""
        self._changed.clear()
        await self._changed.wait()
