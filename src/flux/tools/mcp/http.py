"""A server over HTTP: what is sent along, and what comes back instead of a failure of the whole connection.

The SDK ends a connection, and with it every call in flight, where a request meets a refused socket, a page of a
proxy or a body without end. Here each becomes the error of the one request it concerns.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND

from flux.errors import FluxError
from flux.tools.mcp.outgoing import transport
from flux.tools.mcp.stdio import LARGEST_MESSAGE

#: Bytes that are read of an answer which only says what went wrong.
LARGEST_REFUSAL = 65_536
#: Seconds to connect, and between two pieces of an answer; a stream may be silent longer.
CONNECT_SECONDS, READ_SECONDS, STREAM_SECONDS = 10.0, 300.0, 3600.0

#: Whom connections trust; reading that takes longer than anything else about a connection, and is done once.
TRUSTED: ssl.SSLContext = httpx2.create_ssl_context()
PLAIN = {"accept-encoding": "identity"}

Headers = Callable[[], Awaitable[Mapping[str, str]]]


class TooMuch(httpx2.StreamError):
    """An answer is larger than any that is read."""


class Bounded(httpx2.AsyncByteStream):
    """A body, up to a number of bytes."""

    def __init__(self, inner: Any, limit: int) -> None:
        self._inner = inner
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces of the body.

        :raises TooMuch: there are more bytes
        """
        seen = 0
        async for piece in self._inner:
            seen += len(piece)
            if seen > self._limit:
                raise TooMuch(f"the server sent a message of more than {self._limit:,} bytes")
            yield piece

    async def aclose(self) -> None:
        """Close the connection behind it."""
        await self._inner.aclose()


class Through(httpx2.AsyncBaseTransport):
    """Sends requests by a client of the application, which stays open."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, with what the client adds to its own."""
        for name, value in self._client.headers.items():
            request.headers.setdefault(name, value)
        return await self._client.send(request, stream=True)


class Careful(httpx2.AsyncBaseTransport):
    """Sends requests; for those to the server itself, a failure is an answer that says so."""

    def __init__(
        self, url: str, headers: Headers, inner: httpx2.AsyncBaseTransport | None = None, hosts: Iterable[str] = ()
    ) -> None:
        self._url = httpx2.URL(url)
        self._headers = headers
        self._inner = inner or transport(url, TRUSTED, hosts)
        #: The server said that it does not know the session any more.
        self.expired = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        if not self._is_ours(request):
            return _bounded(await self._inner.handle_async_request(request))
        try:
            request.headers.update(await self._headers())
        except FluxError as error:
            return _refusal(request, 502, {}, INTERNAL_ERROR, str(error))
        if request.method != "POST" or request.url.path != self._url.path:
            return _bounded(await self._inner.handle_async_request(request))
        try:
            response = await self._inner.handle_async_request(request)
        except httpx2.TransportError as error:
            said = str(error) or type(error).__name__
            return _refusal(request, 502, {}, INTERNAL_ERROR, f"cannot reach {self._url.host}: {said}")
        return _bounded(response) if response.status_code < 400 else await self._explained(request, response)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()

    def _is_ours(self, request: httpx2.Request) -> bool:
        """Secrets go to the server alone, wherever else a login may send requests."""
        ours, theirs = self._url, request.url
        return (ours.scheme, ours.host, ours.port) == (theirs.scheme, theirs.host, theirs.port)

    async def _explained(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        """A refusal that names its reason, in the one form that the SDK passes on."""
        gone = response.status_code == 404 and "mcp-session-id" in request.headers
        self.expired = self.expired or gone
        body = await _start_of(response)
        code = INVALID_REQUEST if gone else METHOD_NOT_FOUND if response.status_code == 404 else INTERNAL_ERROR
        kept = {name: value for name, value in response.headers.items() if name == "www-authenticate"}
        if _is_rpc(body):
            return httpx2.Response(
                response.status_code, headers=kept | {"content-type": "application/json"}, content=body, request=request
            )
        said = f"HTTP {response.status_code} {response.reason_phrase}".strip()
        text = " ".join(body.decode("utf-8", "replace").split())[:200] if _is_text(response) else ""
        return _refusal(request, response.status_code, kept, code, f"{said}: {text}" if text else said)


def _bounded(response: httpx2.Response) -> httpx2.Response:
    if response.headers.get("content-encoding", "identity") != "identity":
        # It was told not to: a few bytes may stand for more than there is memory.
        response.stream = Bounded(response.stream, 0)
    elif not response.headers.get("content-type", "").startswith("text/event-stream"):
        response.stream = Bounded(response.stream, LARGEST_MESSAGE)
    return response


async def _start_of(response: httpx2.Response) -> bytes:
    body = bytearray()
    try:
        async for piece in response.stream:  # type: ignore[union-attr]
            body += piece
            if len(body) >= LARGEST_REFUSAL:
                break
    except httpx2.TransportError:
        pass
    await response.aclose()
    return bytes(body[:LARGEST_REFUSAL])


def _is_rpc(body: bytes) -> bool:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(found.get("error"), dict)


def _is_text(response: httpx2.Response) -> bool:
    return response.headers.get("content-type", "").startswith(("text/plain", "application/json"))


def _refusal(
    request: httpx2.Request, status: int, headers: Mapping[str, str], code: int, message: str
) -> httpx2.Response:
    error = {"code": code, "message": message, "data": {"http_status": status}}
    body = {"jsonrpc": "2.0", "id": None, "error": error}
    return httpx2.Response(status, headers=dict(headers), json=body, request=request)


@asynccontextmanager
async def streamable(url: str, careful: Careful, auth: httpx2.Auth | None) -> AsyncGenerator[tuple[Any, Any]]:
    """The streams of a server that speaks Streamable HTTP."""
    timeout = httpx2.Timeout(CONNECT_SECONDS, read=STREAM_SECONDS)
    async with (
        httpx2.AsyncClient(transport=careful, auth=auth, timeout=timeout, headers=PLAIN) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=LARGEST_MESSAGE) as streams,
    ):
        yield streams


@asynccontextmanager
async def sse(url: str, careful: Careful, auth: httpx2.Auth | None) -> AsyncGenerator[tuple[Any, Any]]:
    """The streams of a server that speaks the older HTTP with server-sent events."""

    def client(
        headers: dict[str, str] | None = None, timeout: httpx2.Timeout | None = None, auth: httpx2.Auth | None = None
    ) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=careful, headers=PLAIN | (headers or {}), timeout=timeout, auth=auth)

    async with sse_client(
        url, timeout=CONNECT_SECONDS, sse_read_timeout=STREAM_SECONDS, httpx_client_factory=client, auth=auth
    ) as streams:
        yield streams
