"""What responses of server-sent events share: headers, a heartbeat against idle proxies, and who has left."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Send

HEARTBEAT_SECONDS = 15.0
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Streaming(Response):
    """A response of server-sent events; `closing` is set when the process is about to stop, `heartbeat` in seconds.

    `told` are headers beside those of every stream.
    """

    def __init__(self, closing: asyncio.Event, heartbeat: float, told: Mapping[str, str] | None = None) -> None:
        self.status_code = 200
        self.background = None
        self._closing = closing
        self._heartbeat_seconds = heartbeat
        self._quiet = True
        self._common = HEADERS
        self._told = [(name.lower().encode(), value.encode()) for name, value in (told or {}).items()]

    async def _start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self._common + self._told})

    async def _send(self, send: Send, body: bytes) -> None:
        """Send a piece; the next heartbeat is not needed."""
        self._quiet = False
        await send({"type": "http.response.body", "body": body, "more_body": True})

    async def _finish(self, send: Send) -> None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _heartbeat(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            if self._quiet:
                await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
            self._quiet = True


async def first_done(*tasks: asyncio.Task[Any]) -> set[asyncio.Task[Any]]:
    """The tasks that end first; the others are stopped."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def gone(receive: Receive) -> None:
    """Return when the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
