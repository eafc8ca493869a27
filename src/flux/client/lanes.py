"""The network: one connection for each request that is under way, and some that are kept for the next ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, cast

import httpx

#: Connections that are kept open without a request.
KEPT = 20
ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1)


class Lanes(httpx.AsyncBaseTransport):
    """A transport without a limit of connections: each stream holds one.

    A pool of httpx looks at all of its connections for every request; here each is alone in a pool of its own.
    """

    def __init__(self, *, secure: bool) -> None:
        self._context = httpx.create_ssl_context(verify=secure, trust_env=False)
        self._idle: list[httpx.AsyncHTTPTransport] = []
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer over the connection that was used last, or a new one."""
        lane = self._idle.pop() if self._idle else self._new()
        async with AsyncExitStack() as unless_answered:
            unless_answered.push_async_callback(lane.aclose)
            response = await lane.handle_async_request(request)
            unless_answered.pop_all()
        body = _Body(cast(httpx.AsyncByteStream, response.stream), lambda: self._back(lane))
        return httpx.Response(
            response.status_code, headers=response.headers, stream=body, extensions=response.extensions
        )

    async def aclose(self) -> None:
        """Close what is idle; what is under way is closed by its readers."""
        self._closed = True
        while self._idle:
            await self._idle.pop().aclose()

    def _new(self) -> httpx.AsyncHTTPTransport:
        return httpx.AsyncHTTPTransport(verify=self._context, limits=ONE, trust_env=False)

    async def _back(self, lane: httpx.AsyncHTTPTransport) -> None:
        if self._closed or len(self._idle) >= KEPT:
            await lane.aclose()
        else:
            self._idle.append(lane)


class _Body(httpx.AsyncByteStream):
    """The body of a response; `back` is called once it is closed."""

    def __init__(self, stream: httpx.AsyncByteStream, back: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._stream = stream
        self._back: Callable[[], Coroutine[Any, Any, None]] | None = back

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        back, self._back = self._back, None
        if back is not None:
            await self._stream.aclose()
            await back()
