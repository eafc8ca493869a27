"""In front of every route: who calls. Whoever stays on a stream is looked at again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flux.engine.service.identity import OPERATOR, Caller, Identities
from flux.engine.service.principals import KEY_PREFIX
from flux.errors import FluxError, Unauthorized
from flux.http.guard import refuse, refuse_socket
from flux.http.streaming import first_done
from flux.permissions import NOTHING
from flux.store.database import Scope as Principal

#: What a header can carry as a token: visible ASCII.
BEARER = re.compile(rb"bearer +([!-~]{1,16384}) *", re.IGNORECASE)
#: Where a browser comes back to without a token; what it brings is sealed, and good for one login.
FOR_BROWSERS = frozenset({"/oauth/callback", "/oauth/client.json"})
OPEN = frozenset({"/health", "/ready"}) | FOR_BROWSERS
CALLER = "flux.caller"
#: May do nothing, and is asked for nothing where everybody may come.
NOBODY = Caller(Principal("", ""), "unknown", (), NOTHING)
REMEDY = "run `flux auth login`, or set FLUX_AUTH_TOKEN"
MISSING = f"Missing or invalid Authorization header; {REMEDY}"
UNKNOWN = f"the token is not valid: it is unknown, has expired, or its principal is disabled; {REMEDY}"


class Tokens(Protocol):
    """The tokens of an identity provider."""

    async def caller(self, token: str) -> Caller | None:
        """Whose token it is; None: nobody's who may call. Unavailable: the provider does not answer."""


class Authentication:
    """ASGI middleware: finds the caller of each request, or refuses it; ends the stream of who may no longer call.

    Who is of another tenant is nobody here: the functions of this process are those of its own.
    """

    def __init__(self, app: ASGIApp, identities: Identities, *, tenant: str, keys: bool, tokens: Tokens | None) -> None:
        self._app = app
        self._tenant = tenant
        self._identities = identities
        self._keys = keys
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token = _token(scope)
        if scope["path"] in OPEN:
            scope[CALLER] = NOBODY
            await self._app(scope, receive, send)
            return
        try:
            caller = await self.caller(token) if token else None
        except FluxError as error:
            await refuse(error, send)
            return
        if caller is None:
            await refuse(Unauthorized(UNKNOWN if token else MISSING), send)
            return
        scope[CALLER] = caller
        line = _Line(receive, send, lambda: self._identities.lost(caller, lambda: self.caller(token)))
        await self._app(scope, line.receive, line.send)
        await line.finish()

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = _token(scope)
        try:
            caller = await self.caller(token) if token else None
            if caller is None:
                raise Unauthorized(UNKNOWN if token else None)
        except FluxError as error:
            await refuse_socket(error, receive, send)
            return
        scope[CALLER] = caller

        async def heard() -> Message:
            waiting = asyncio.ensure_future(receive())
            lost = self._identities.lost(caller, lambda: self.caller(token))
            if waiting in await first_done(waiting, asyncio.ensure_future(_void(lost))):
                return waiting.result()
            await send({"type": "websocket.close", "code": 1008, "reason": UNKNOWN})
            return {"type": "websocket.disconnect", "code": 1008}

        await self._app(scope, heard, send)

    async def caller(self, token: str) -> Caller | None:
        """Whose token it is; None: nobody's who may call."""
        if token.startswith(KEY_PREFIX):
            found = await self._identities.by_key(token) if self._keys else None
            return found if found is not None and found.scope.tenant == self._tenant else None
        return await self._tokens.caller(token) if self._tokens else None


class _Line:
    """One exchange. When the caller is lost while nothing is expected of it, the application sees it leave."""

    def __init__(self, receive: Receive, send: Send, lost: Callable[[], Awaitable[None]]) -> None:
        self._receive = receive
        self._send = send
        self._lost = lost
        self._body = True
        self._cut = False
        self._open = False

    async def receive(self) -> Message:
        """The next message of the caller."""
        if self._body:
            message = await self._receive()
            self._body = message.get("more_body", False)
            return message
        waiting = asyncio.ensure_future(self._receive())
        done = await first_done(waiting, asyncio.ensure_future(_void(self._lost())))
        if waiting in done:
            return waiting.result()
        for task in done:
            task.result()
        self._cut = True
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass on, and note whether more is to come."""
        self._open = message["type"] == "http.response.start" or message.get("more_body", False)
        await self._send(message)

    async def finish(self) -> None:
        """End in good order what was cut off."""
        if self._cut and self._open:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


async def _void(awaitable: Awaitable[None]) -> None:
    await awaitable


def _token(scope: Scope) -> str:
    """The token that a request brings; an empty one counts as missing, as do several."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    found = BEARER.fullmatch(given[0].strip()) if len(given) == 1 else None
    return found[1].decode() if found else ""


def caller_of(request: Request) -> Caller:
    """Who calls; with auth off, and in the process of a command, the operator."""
    caller: Caller = request.scope.get(CALLER, OPERATOR)
    return caller
