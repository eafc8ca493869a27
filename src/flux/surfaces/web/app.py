"""The application behind the page: its files, and the few routes of the server that it needs.

It keeps nothing: each call goes to the server through the client, with the token of whoever started it.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import httpx
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from flux.client import FluxClient
from flux.errors import FluxError, InvalidInput, NotFound, ServerUnreachable
from flux.http.envelope import error_body
from flux.http.guard import Guard
from flux.surfaces.web.relay import Relay
from flux.surfaces.web.shield import Shield

STATIC = Path(__file__).parent / "static"
MAX_BODY = 7_000_000
#: A file that comes as it is made.
FILE_HEADERS = {
    "Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"
}  # fmt: skip
#: A browser asks each time whether a file has changed, and mostly hears that it has not.
ASK_AGAIN = {"Cache-Control": "no-cache"}
#: The ending of the file of each format that a session is exported in.
EXPORTS = {"jsonl": "jsonl", "markdown": "md"}
IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,128}")
#: What the page may ask of a session besides its log: method -> the rest of the path.
PASSED_ON = {
    "POST": ("messages", "cancel", "fork", "interrupts/{iid}"),
    "PUT": ("name",),
}


def create_page(
    client: FluxClient, agent: str, *, model: str | None = None, hosts: frozenset[str] | None = frozenset()
) -> Starlette:
    """The page of an agent, with `model` (provider/model) instead of its own.

    `hosts` are the names it answers to besides loopback; None: any.
    """
    page = _Page(client, agent, model)
    routes = [
        Route("/", _index),
        Route("/api/page", page.about),
        Route("/api/sessions", page.sessions, methods=["GET"]),
        Route("/api/sessions", page.start, methods=["POST"]),
        Route("/api/sessions/{id}", page.look),
        Route("/api/sessions/{id}/events", page.events),
        Route("/api/sessions/{id}/artifacts/{aid}", page.artifact),
        Route("/api/sessions/{id}/export", page.export),
        *(
            Route(f"/api/sessions/{{id}}/{rest}", partial(page.pass_on, rest), methods=[method])
            for method, paths in PASSED_ON.items()
            for rest in paths
        ),
        Mount("/static", _Files(directory=STATIC)),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Shield), Middleware(Guard, hosts=hosts, max_body=MAX_BODY)],
        exception_handlers={FluxError: _flux_error, HTTPException: _http_error},
    )
    app.state.closing = page.closing
    return app


def end_streams(app: Starlette) -> None:
    """The process is about to stop: open streams end in good order."""
    app.state.closing.set()


class _Files(StaticFiles):
    """The files of the page; a browser asks each time whether they have changed."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(ASK_AGAIN)
        return response


class _Page:
    """The routes of the page of one agent."""

    def __init__(self, client: FluxClient, agent: str, model: str | None) -> None:
        self.closing = asyncio.Event()
        self._client = client
        self._agent = agent
        self._model = model

    async def about(self, _: Request) -> Response:
        """Which agent this is, what keeps it from running, and whether the server can fork sessions."""
        found = await self._client.get(f"/agents/{quote(self._agent, safe='')}")
        definition = found["definition"]
        return JSONResponse(
            {
                "agent": self._agent,
                "model": self._model or definition.get("model"),
                "description": definition.get("description"),
                "problems": found.get("problems", []),
                "fork": await self._can_fork(),
            }
        )

    async def sessions(self, request: Request) -> Response:
        """The sessions of the agent; takes `q`, `limit` and `cursor`."""
        query = {
            name: request.query_params[name] for name in ("q", "limit", "cursor") if request.query_params.get(name)
        }
        return JSONResponse(await self._client.get("/sessions", agent=self._agent, **query))

    async def start(self, request: Request) -> Response:
        """Start a session of the agent with a message."""
        body = await _body(request)
        message = body.pop("message", None)
        if body or not isinstance(message, str):
            raise InvalidInput("the body must have the one field 'message', a text")
        key = _key(request)
        handle = await self._client.start_session(self._agent, None if self._model else message, key=key)
        if self._model:
            await handle.post(message, model=self._model, key=key and f"{key}-message")
        return JSONResponse({"id": handle.id}, 201)

    async def look(self, request: Request) -> Response:
        """A session's row."""
        return JSONResponse(await self._client.get(_path(request)))

    async def events(self, request: Request) -> Response:
        """A page of a session's log, or by Accept everything behind Last-Event-ID as it happens."""
        path = _path(request, "events")
        if "text/event-stream" not in request.headers.get("accept", ""):
            page = await self._client.download(f"{path}?{request.url.query}")
            return Response(page, media_type="application/json")
        asked = {"Accept": "text/event-stream", "Last-Event-ID": request.headers.get("last-event-id", "0")}
        chunks = self._client.stream(path, asked)
        try:
            await anext(chunks)
        except httpx.TransportError as error:
            raise ServerUnreachable("no Flux server answers", debug=repr(error)) from error
        return Relay(chunks, self.closing)

    async def artifact(self, request: Request) -> Response:
        """What a session keeps beside its log, as a file to save."""
        aid = request.path_params["aid"]
        content = await self._client.download(_path(request, "artifacts/{aid}"))
        disposition = f'attachment; filename="{aid}.txt"'
        return Response(content, media_type="text/plain", headers={"Content-Disposition": disposition})

    async def export(self, request: Request) -> Response:
        """The session as a file to save: `format` is jsonl or markdown."""
        format = request.query_params.get("format", "markdown")
        ending = EXPORTS.get(format)
        if ending is None:
            raise InvalidInput("format must be jsonl or markdown")
        chunks = self._client.stream(f"{_path(request, 'export')}?format={format}", {})
        try:
            await anext(chunks)
        except httpx.TransportError as error:
            raise ServerUnreachable("no Flux server answers", debug=repr(error)) from error
        name = f'attachment; filename="session-{request.path_params["id"]}.{ending}"'
        return Relay(chunks, self.closing, FILE_HEADERS | {"Content-Disposition": name})

    async def pass_on(self, rest: str, request: Request) -> Response:
        """One of the calls that go to the server as they are."""
        path, body = _path(request, rest), await _body(request)
        if rest == "messages" and self._model:
            body = {"model": self._model} | body
        if request.method == "PUT":
            return JSONResponse(await self._client.put(path, body))
        return JSONResponse(await self._client.post(path, body or None, key=_key(request)), 202)

    async def _can_fork(self) -> bool:
        """Whether the route is there: it is not one to GET, which the server says of routes alone."""
        try:
            await self._client.get("/sessions/-/fork")
        except InvalidInput:
            return True
        except FluxError:
            return False
        return False


async def _index(_: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers=ASK_AGAIN)


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request; nothing is an empty one."""
    content = await request.body()
    if not content:
        return {}
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise InvalidInput("the body must be JSON, sent as application/json")
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("the body is not a JSON object") from error


def _path(request: Request, rest: str = "") -> str:
    """The server's path of a session; `rest` may name parameters of the request."""
    given = request.path_params
    for name, value in given.items():
        if not IDENTIFIER.fullmatch(value):
            raise NotFound(f"{value[:80]!r} is no {'session' if name == 'id' else 'id'}")
    path = f"/sessions/{given['id']}"
    return f"{path}/{rest.format(**given)}" if rest else path


def _key(request: Request) -> str | None:
    return request.headers.get("idempotency-key")


async def _flux_error(_: Request, raised: Exception) -> Response:
    error = cast(FluxError, raised)
    return JSONResponse(error_body(error), error.status)


async def _http_error(request: Request, raised: Exception) -> Response:
    error = cast(HTTPException, raised)
    told = NotFound(f"there is no {request.method} {request.url.path[:200]}")
    return JSONResponse(error_body(told), error.status_code, headers=error.headers)
