"""WS /agents/{name}/{id}: prompts to an instance over one connection; what is under way outlives it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec
from fastapi import Request
from msgspec import Struct
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from flux.agents.project.instances import DEFAULT, Address
from flux.engine.intake.inputs import NewMessage
from flux.errors import FluxError, InvalidInput, SessionBusy, TooManyRequests
from flux.http.envelope import error_body
from flux.http.streaming import first_done
from flux.server.context import limits_of, process_of, scope_of, whole_segments
from flux.server.prompted import Prompted
from flux.server.rbac import require

#: Codes by which a connection is closed.
REFUSED, RESTARTS = 1008, 1012


class _Prompt(Struct, tag_field="type", tag="prompt", forbid_unknown_fields=True):
    message: str
    session: str = DEFAULT
    request_id: str | None = None


class _Abort(Struct, tag_field="type", tag="abort", forbid_unknown_fields=True):
    request_id: str | None = None


class _Ping(Struct, tag_field="type", tag="ping", forbid_unknown_fields=True):
    request_id: str | None = None


_decode = msgspec.json.Decoder(_Prompt | _Abort | _Ping).decode


class _Line:
    """One connection to an instance."""

    def __init__(self, socket: WebSocket, request: Request) -> None:
        self._socket = socket
        self._request = request
        self._process = process_of(request)
        self._scope = scope_of(request)
        self._agent, self._id = request.path_params["name"], request.path_params["id"]
        self._running: dict[str, tuple[asyncio.Task[None], Prompted | None]] = {}
        self._count = 0

    async def serve(self) -> None:
        """Until the client leaves."""
        await self._send("ready", agent=self._agent, id=self._id)
        try:
            while True:
                await self._take(await self._socket.receive())
        except WebSocketDisconnect:
            pass
        finally:
            for task, _ in list(self._running.values()):
                task.cancel()  # what is under way goes on; nobody hears of it here

    async def _take(self, message: Any) -> None:
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        try:
            frame = _decode(message.get("text") if message.get("text") is not None else message.get("bytes") or b"")
            limits_of(self._request).count(self._scope)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            await self._fail(None, InvalidInput(f"the frame cannot be used: {error}"))
            return
        except TooManyRequests as error:
            await self._fail(frame.request_id, error)
            return
        match frame:
            case _Ping(request_id=id):
                await self._send("pong", id)
            case _Abort(request_id=id):
                await self._abort(id)
            case _Prompt():
                await self._begin(frame)

    async def _begin(self, frame: _Prompt) -> None:
        self._count += 1
        id = frame.request_id or f"r{self._count}"
        if id in self._running:
            await self._fail(id, SessionBusy(f"the request {id[:80]!r} is under way; choose another request_id"))
            return
        task = asyncio.create_task(self._prompt(id, frame), name="prompt of a socket")
        self._running[id] = (task, None)

    async def _prompt(self, id: str, frame: _Prompt) -> None:
        try:
            await self._run(id, frame)
        except FluxError as error:
            await self._fail(id, error)
        finally:
            self._running.pop(id, None)

    async def _run(self, id: str, frame: _Prompt) -> None:
        await require(self._request)  # the caller may have been disabled meanwhile
        if not frame.message.strip():
            raise InvalidInput("message: it is empty")
        to = Address(self._agent, self._id, frame.session)
        await self._process.instances.authorize(self._request, to.agent, to.id)
        admitted = await self._process.instances.send(self._scope, to, NewMessage(frame.message, "reject"))
        prompted = Prompted(self._process, self._scope, to, admitted)
        self._running[id] = (self._running[id][0], prompted)
        await self._send("started", id, session_id=prompted.session)
        async with aclosing(prompted.told(None)) as batches:
            async for batch in batches:
                for told in batch:
                    await self._tell(id, told.type, msgspec.json.decode(told.data))

    async def _tell(self, id: str, type: str, body: Any) -> None:
        match type:
            case "start":
                return
            case "end" | "waiting":
                await self._send("result", id, **body)
            case "error":
                await self._send("error", id, **body)
            case _:
                await self._send("event", id, event={"type": type, **body})

    async def _abort(self, id: str | None) -> None:
        found = [one for one in self._running if id is None or one == id]
        if id is not None and not found:
            await self._fail(id, InvalidInput(f"there is no request {id[:80]!r} under way"))
        for one in found:
            prompted = self._running[one][1]
            if prompted is not None:
                await self._process.sessions.cancel(self._scope, prompted.session)

    async def _fail(self, id: str | None, error: FluxError) -> None:
        await self._send("error", id, **error_body(error))

    async def _send(self, type: str, request: str | None = None, /, **body: Any) -> None:
        frame = {"type": type, **({"request_id": request} if request is not None else {}), **body}
        await self._socket.send_text(msgspec.json.encode(frame).decode())


async def _talk(socket: WebSocket) -> None:
    request = Request({**socket.scope, "type": "http", "method": "WS", "route": ROUTE})
    try:
        await whole_segments(request)
        await require(request)
        names = request.path_params
        await process_of(request).instances.authorize(request, names["name"], names["id"])
    except FluxError as error:
        await socket.accept()
        await socket.send_json(error_body(error) | {"type": "error"})
        await socket.close(REFUSED, str(error)[:120])
        return
    await socket.accept()
    done = await first_done(
        asyncio.create_task(_Line(socket, request).serve()),
        asyncio.create_task(request.app.state.closing.wait()),
    )
    for task in done:
        task.result()
    if request.app.state.closing.is_set():
        await socket.close(RESTARTS, "the server is about to stop")


ROUTE = WebSocketRoute("/agents/{name}/{id}", _talk)
