"""In front of every route: which hosts may be named, which pages may call, how large a body may be."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flux.errors import FluxError, Forbidden, HeadersTooLarge, InvalidInput, TooLarge
from flux.http.envelope import error_body, error_headers

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
#: JSON may escape each byte of a message.
BODY_PER_MESSAGE_BYTE = 6


def body_limit(message_bytes: int) -> int:
    """How large a body may be that carries messages of so many bytes."""
    return BODY_PER_MESSAGE_BYTE * message_bytes + 100_000


class Guard:
    """ASGI middleware. `hosts` are names besides loopback; empty: only loopback; None: any.

    A page of another site could otherwise reach a server on this machine through the user's browser.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str] | None, max_body: int, max_headers: int = 65_536) -> None:
        self._max_headers = max_headers
        self._app = app
        self._hosts = None if hosts is None else LOOPBACK | {host.lower() for host in hosts}
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._oversized(scope) or self._refusal(Headers(scope=scope)) or _unclean(scope)
        if refusal is not None:
            await (refuse(refusal, send) if scope["type"] == "http" else refuse_socket(refusal, receive, send))
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, _Counted(receive, self._max_body), send)
        except TooLarge as error:
            await refuse(error, send)

    def _oversized(self, scope: Scope) -> FluxError | None:
        size = len(scope["query_string"]) + sum(len(name) + len(value) for name, value in scope["headers"])
        if size <= self._max_headers:
            return None
        return HeadersTooLarge(f"the headers and the address have more than {self._max_headers:,} bytes")

    def _refusal(self, headers: Headers) -> FluxError | None:
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._max_body:
            return _too_large(self._max_body)
        host = _hostname(headers.get("host", ""))
        if self._hosts is not None and host not in self._hosts:
            return Forbidden(f"this server does not answer to the host name {host[:80]!r}")
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != headers.get("host"):
            return Forbidden(f"pages of {origin[:80]!r} may not call this server")
        return None


class _Counted:
    """A receive that refuses more bytes than allowed, also when no length was announced."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._seen = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > self._limit:
            raise _too_large(self._limit)
        return message


def _unclean(scope: Scope) -> FluxError | None:
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        return InvalidInput("the address must not contain the character NUL")
    return None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the request body is larger than {limit:,} bytes")


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return host


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


async def refuse_socket(error: FluxError, receive: Receive, send: Send) -> None:
    """Do not take a WebSocket; the client sees a 403."""
    await receive()
    await send({"type": "websocket.close", "code": 1008, "reason": str(error)[:120]})


async def refuse(error: FluxError, send: Send) -> None:
    """Answer with an error."""
    body = json.dumps(error_body(error)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in error_headers(error).items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
