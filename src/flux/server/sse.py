"""Server-sent events: frames that are encoded once, ids to resume from, a heartbeat against idle proxies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flux.store.feed import Frame

HEARTBEAT_SECONDS = 15.0
GATHER_SECONDS = 0.002
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


def encode_frame(frame: Frame) -> bytes:
    """A frame on the wire. JSON holds no raw line breaks, so one data line is enough."""
    (seq, epoch, n), type, data, _, _ = frame
    return b"id: %d.%d.%d\nevent: %b\ndata: %b\n\n" % (seq, epoch, n, type.encode(), data)


class EventStream(Response):
    """Streams batches of frames until they end, the reader leaves or the server closes; `heartbeat` in seconds."""

    def __init__(
        self, batches: AsyncGenerator[list[Frame], None], closing: asyncio.Event, heartbeat: float = HEARTBEAT_SECONDS
    ) -> None:
        self.status_code = 200
        self.background = None
        self._batches = batches
        self._closing = closing
        self._heartbeat_seconds = heartbeat
        self._quiet = True
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send; close the source when either side is done."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": HEADERS})
        tasks = [
            asyncio.create_task(self._pump(send)),
            asyncio.create_task(gone(receive)),
            asyncio.create_task(self._heartbeat(send)),
            asyncio.create_task(self._closing.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not self._ended and self._closing.is_set():
            await self._end(send)

    async def _pump(self, send: Send) -> None:
        async with aclosing(self._batches) as batches:
            async for batch in batches:
                self._quiet = False
                body = b"".join(map(encode_frame, batch))
                await send({"type": "http.response.body", "body": body, "more_body": True})
                if not batch[-1].entry:
                    # The first token has gone out at once; those on its heels share a packet.
                    await asyncio.sleep(GATHER_SECONDS)
        await self._end(send)

    async def _end(self, send: Send) -> None:
        self._ended = True
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _heartbeat(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            if self._quiet:
                await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
            self._quiet = True


class Begun:
    """Batches whose source has begun to collect, although nobody reads them yet."""

    def __init__(self, batches: AsyncGenerator[list[Frame], None]) -> None:
        self._batches = batches
        self._first = asyncio.ensure_future(anext(batches))

    @classmethod
    async def reading(cls, batches: AsyncGenerator[list[Frame], None]) -> Begun:
        """Begin; whatever happens after this returns is collected."""
        begun = cls(batches)
        await asyncio.sleep(0)
        return begun

    async def rest(self) -> AsyncGenerator[list[Frame], None]:
        """All batches; they end with the reader."""
        try:
            yield await self._first
            async for batch in self._batches:
                yield batch
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Stop collecting."""
        self._first.cancel()
        await asyncio.gather(self._first, return_exceptions=True)
        await self._batches.aclose()


async def gone(receive: Receive) -> None:
    """Return when the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
