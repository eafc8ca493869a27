"""Server-sent events: frames that are encoded once, and ids to resume from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager, aclosing, nullcontext

from starlette.types import Receive, Scope, Send

from flux.http.streaming import HEARTBEAT_SECONDS, Streaming, first_done, gone
from flux.store.feed import Frame

GATHER_SECONDS = 0.002


def encode_frame(frame: Frame) -> bytes:
    """A frame on the wire. JSON holds no raw line breaks, so one data line is enough."""
    (seq, epoch, n), type, data, _, _ = frame
    return b"id: %d.%d.%d\nevent: %b\ndata: %b\n\n" % (seq, epoch, n, type.encode(), data)


class EventStream(Streaming):
    """Streams batches of frames until they end, the reader leaves or the server closes, inside of `reading`."""

    def __init__(
        self,
        batches: AsyncGenerator[list[Frame], None],
        closing: asyncio.Event,
        heartbeat: float = HEARTBEAT_SECONDS,
        reading: AbstractContextManager[None] | None = None,
        told: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(closing, heartbeat, told)
        self._reading = reading or nullcontext()
        self._batches = batches
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send; close the source when either side is done."""
        with self._reading:
            await self._stream(receive, send)

    async def _stream(self, receive: Receive, send: Send) -> None:
        await self._start(send)
        done = await first_done(
            asyncio.create_task(self._pump(send)),
            asyncio.create_task(gone(receive)),
            asyncio.create_task(self._heartbeat(send)),
            asyncio.create_task(self._closing.wait()),
        )
        for task in done:
            task.result()
        if not self._ended and self._closing.is_set():
            await self._end(send)

    async def _pump(self, send: Send) -> None:
        async with aclosing(self._batches) as batches:
            async for batch in batches:
                await self._send(send, b"".join(map(encode_frame, batch)))
                if not batch[-1].entry:
                    # The first token has gone out at once; those on its heels share a packet.
                    await asyncio.sleep(GATHER_SECONDS)
        await self._end(send)

    async def _end(self, send: Send) -> None:
        self._ended = True
        await self._finish(send)


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
