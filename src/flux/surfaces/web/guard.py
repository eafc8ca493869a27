"""In front of the page: which hosts may be named, which pages may call, and what a browser may do with it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flux.errors import FluxError, Forbidden, TooLarge

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_BODY = 7_000_000

#: Scripts and styles come from files of this page alone; text becomes markup only behind the sanitiser.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """ASGI middleware. `hosts` are names besides loopback; None: any.

    Whoever reaches the page acts with the operator's token, so no page of another site may.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._hosts = None if hosts is None else LOOPBACK | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with the headers that every answer gets."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(Headers(scope=scope), str(scope["path"]))
        if refusal is not None:
            await _refuse(refusal, guarded)
            return
        await self._app(scope, receive, guarded)

    def _refusal(self, headers: Headers, path: str) -> FluxError | None:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return Forbidden(f"this page does not answer to the host name {host[:80]!r}")
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host:
            return Forbidden(f"pages of {origin[:80]!r} may not call this one")
        site = headers.get("sec-fetch-site", "none")
        if path.startswith("/api/") and site not in ("same-origin", "none"):
            return Forbidden("pages of other sites may not call this one")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > MAX_BODY:
            return TooLarge(f"the request body is larger than {MAX_BODY:,} bytes")
        return None


def error_body(error: FluxError) -> dict[str, Any]:
    """The envelope of an error, as the server has it."""
    return {"error": {"type": error.type, "message": str(error), "details": error.details}}


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return host


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


async def _refuse(error: FluxError, send: Send) -> None:
    body = json.dumps(error_body(error)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
