"""A response of server-sent events: sent as they come, with a heartbeat against idle proxies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

HEARTBEAT_SECONDS = 15.0
#: Pieces that may wait for a slow reader before the source has to wait too.
AHEAD = 100
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Stream(Response):
    """Sends pieces until they end, the reader leaves, or `closing` is set: then `farewell` is the last one.

    `source` is closed at the end, whoever made it; `heartbeat` is in seconds.
    """

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], source: AsyncExitStack, closing: asyncio.Event, *,
        farewell: bytes = b"", heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:  # fmt: skip
        self.status_code = 200
        self.background = None
        self._pieces = pieces
        self._source = source
        self._closing = closing
        self._farewell = farewell
        self._heartbeat_seconds = heartbeat
        self._quiet = True
        self._waiting: list[bytes] = []
        self._changed = asyncio.Event()
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send; close the source when either side is done."""
        async with self._source:
            await send({"type": "http.response.start", "status": self.status_code, "headers": HEADERS})
            pumping = asyncio.create_task(self._pump())
            sending = asyncio.create_task(self._send_all(send))
            leaving, closing = asyncio.create_task(_gone(receive)), asyncio.create_task(self._closing.wait())
            tasks = [pumping, sending, leaving, closing, asyncio.create_task(self._heartbeat(send))]
            try:
                done, _ = await asyncio.wait(tasks[1:], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if leaving in done:
                return
            if sending in done:
                sending.result()
                pumping.result()
            else:
                await send({"type": "http.response.body", "body": self._farewell, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self) -> None:
        """Collect pieces. Those that are there at once go out together."""
        try:
            async with aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    self._waiting.append(piece)
                    self._tell()
                    while len(self._waiting) >= AHEAD:
                        await self._changed.wait()
        finally:
            self._ended = True
            self._tell()

    async def _send_all(self, send: Send) -> None:
        while self._waiting or not self._ended:
            if not self._waiting:
                await self._changed.wait()
                continue
            pieces, self._waiting = self._waiting, []
            self._quiet = False
            await send({"type": "http.response.body", "body": b"".join(pieces), "more_body": True})
            self._tell()

    def _tell(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _heartbeat(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            if self._quiet:
                await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
            self._quiet = True


async def _gone(receive: Receive) -> None:
    """Return when the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
