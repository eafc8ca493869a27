"""The routes of api mode. Each request acts in the name of its own token; nothing is kept between requests."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Literal, TypeVar, cast, get_args
from urllib.parse import quote

import msgspec
from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from flux.client import FluxClient
from flux.errors import ExecutionNotFound, FluxError, InvalidInput, NotFound, Unauthorized
from flux.events import Mode
from flux.http.streaming import HEARTBEAT_SECONDS
from flux.suggest import unknown
from flux.surfaces.api import talk
from flux.surfaces.api.streaming import Stream
from flux.surfaces.frames import error_frame

logger = logging.getLogger(__name__)

HEALTH = "/health"
STOPPING = "this process is stopping; the run goes on, and GET /session/ID shows what became of it"
#: What a header can carry as a token: visible ASCII.
_BEARER = re.compile(r"bearer +([!-~]+) *", re.IGNORECASE)
_ID = re.compile(r"[0-9a-fA-F-]{1,64}")
MAX_KEY = 256


Action = Literal["accept", "decline", "cancel"]


class Say(Struct, frozen=True):
    """POST /chat. `mode`: when a message is read that comes while the agent works."""

    message: str
    mode: Mode = "queue"


class Elicit(Struct, frozen=True):
    """POST /elicitation/{id}. `content`: what a question for words or a form is answered with."""

    elicitation_id: str
    action: Action
    content: Any = None


class Approve(Struct, frozen=True):
    """POST /approval/{id}. `always`: the tool is not asked about again in this session."""

    approved: bool
    reason: str | None = None
    always: bool = False


B = TypeVar("B", Say, Elicit, Approve)
#: Fields that take one of some words.
CHOICES = {"mode": get_args(Mode), "action": get_args(Action)}


def create_api(
    client: FluxClient, agent: str, *, model: str | None = None, heartbeat: float = HEARTBEAT_SECONDS
) -> Starlette:
    """The application for an agent. Of `client` only the way to the server is used, never its token.

    A stream in which nothing happens says so every `heartbeat` seconds.
    """
    app = Starlette(
        routes=[
            Route(HEALTH, health),
            Route("/chat", chat, methods=["POST"]),
            Route("/elicitation/{id}", elicitation, methods=["POST"]),
            Route("/approval/{id}", approval, methods=["POST"]),
            Route("/session/{id}", session),
        ],
        middleware=[Middleware(Bearer)],
        exception_handlers={FluxError: _flux_error, HTTPException: _http_error, Exception: _unexpected},
    )
    app.router.redirect_slashes = False
    app.state.client = client
    app.state.agent = agent
    app.state.model = model
    app.state.heartbeat = heartbeat
    app.state.closing = asyncio.Event()
    return app


def end_streams(app: Starlette) -> None:
    """The process is about to stop: open streams end in good order."""
    app.state.closing.set()


class Bearer:
    """ASGI middleware: nothing but the health is told to who brings no token."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] == "http" and scope["path"] != HEALTH and not token_of(Request(scope)):
            response = _envelope(Unauthorized())
            response.headers["WWW-Authenticate"] = "Bearer"
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


def token_of(request: Request) -> str:
    """The token that a request brings; an empty one counts as missing."""
    found = _BEARER.fullmatch(request.headers.get("authorization", "").strip())
    return found[1] if found else ""


async def health(request: Request) -> Response:
    """This process answers."""
    return JSONResponse({"status": "ok"})


async def chat(request: Request) -> Response:
    """Send a message and stream its run; without `session` in a new session."""
    said = await _body(request, Say)
    if not said.message:
        raise InvalidInput("message: must not be empty")
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= MAX_KEY:
        raise InvalidInput(f"Idempotency-Key must have 1 to {MAX_KEY} characters")
    session = _session(request) if "session" in request.query_params else None
    message = talk.Message(said.message, said.mode, key)
    return await _streamed(request, lambda caller, stack: talk.chat(caller, stack, session, message))


async def elicitation(request: Request) -> Response:
    """Answer an elicitation and stream the resumed run."""
    said = await _body(request, Elicit)
    given = request.path_params["id"]
    if said.elicitation_id != given:
        raise InvalidInput(f"elicitation_id {said.elicitation_id[:80]!r} is not that of the address, {given[:80]!r}")
    return await _answered(request, talk.Answer(given, said.action, content=said.content))


async def approval(request: Request) -> Response:
    """Decide an approval and stream the resumed run."""
    said = await _body(request, Approve)
    word = "approve" if said.approved else "reject"
    return await _answered(request, talk.Answer(request.path_params["id"], word, said.reason, said.always))


async def session(request: Request) -> Response:
    """A session as an execution."""
    id = request.path_params["id"]
    if not _ID.fullmatch(id):
        raise ExecutionNotFound(f"there is no session {id[:80]!r}")
    async with _client(request) as client:
        return JSONResponse(await client.get(f"/executions/{quote(id, safe='')}"))


def _client(request: Request) -> FluxClient:
    ours: FluxClient = request.app.state.client
    return ours.with_token(token_of(request))


def _session(request: Request) -> str:
    id = request.query_params.get("session", "")
    if not id:
        raise InvalidInput("name the session: ?session=ID")
    return id


async def _answered(request: Request, said: talk.Answer) -> Response:
    session = _session(request)
    return await _streamed(request, lambda caller, stack: talk.answer(caller, stack, session, said))


async def _streamed(
    request: Request, act: Callable[[talk.Caller, AsyncExitStack], Awaitable[AsyncGenerator[bytes, None]]]
) -> Response:
    """Do something, and stream what comes of it; what cannot be done is an error before the stream begins."""
    state = request.app.state
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_client(request))
        pieces = await act(talk.Caller(client, state.agent, state.model), stack)
        farewell = talk.encode(error_frame(STOPPING, retryable=True))
        return Stream(pieces, stack.pop_all(), state.closing, farewell=farewell, heartbeat=state.heartbeat)


async def _body(request: Request, cls: type[B]) -> B:
    """The body of a request.

    :raises InvalidInput: it is not what the route takes
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise InvalidInput("the body must be a JSON object, sent as application/json")
    try:
        given = msgspec.json.decode(await request.body())
    except RecursionError as error:
        raise InvalidInput("the body is nested too deep") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise InvalidInput("the body must be a JSON object, sent as application/json")
    for name in given:
        if name not in cls.__struct_fields__:
            raise InvalidInput(unknown("field", name, cls.__struct_fields__))
    try:
        return msgspec.convert(given, cls)
    except msgspec.ValidationError as error:
        raise InvalidInput(_fault(str(error))) from error


def _fault(said: str) -> str:
    """What is wrong with a body, in the words of the server."""
    missing = re.fullmatch(r"Object missing required field `(\w+)`", said)
    if missing:
        return f"missing field {missing[1]!r}"
    what, _, where = said.partition(" - at `$.")
    field = where.rstrip("`")
    if field in CHOICES:
        return f"{field} must be {', '.join(CHOICES[field][:-1])} or {CHOICES[field][-1]}"
    return f"{field}: {what}" if field else what


def _envelope(error: FluxError) -> JSONResponse:
    """The one error envelope."""
    return JSONResponse({"error": {"type": error.type, "message": str(error), "details": error.details}}, error.status)


async def _flux_error(request: Request, raised: Exception) -> Response:
    error = cast(FluxError, raised)
    if error.status >= 500:
        logger.error("%s %s: %s %s", request.method, request.url.path, error, error.debug)
    return _envelope(error)


async def _http_error(request: Request, raised: Exception) -> Response:
    error = cast(HTTPException, raised)
    path = request.url.path[:200]
    if error.status_code == 404:
        return _envelope(NotFound(f"there is no {request.method} {path}"))
    refused = _envelope(InvalidInput(f"{request.method} is not possible at {path}"))
    refused.status_code = error.status_code
    refused.headers.update(error.headers or {})
    return refused


async def _unexpected(request: Request, error: Exception) -> Response:
    return _envelope(FluxError("something went wrong inside this process; its log has the details"))
