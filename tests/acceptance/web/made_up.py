"""A server that is made up: one session with a log of any entries, behind the real proxy."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from flux.client import FluxClient
from flux.client.transport import InProcessTransport
from flux.errors import InterruptDecided
from flux.http.envelope import error_body


class MadeUp:
    """`log` are entries without their places; `asked` are the pages of it that were read, `answers` what was said.

    `rows` are the sessions of the list; `decided`: somebody else has answered every question.
    """

    def __init__(self, log: list[dict[str, Any]]) -> None:
        self.log = [{"seq": seq, "run_id": "r", "at": 0.0, **entry} for seq, entry in enumerate(log, 1)]
        self.asked: list[tuple[int, int]] = []
        self.answers: list[Any] = []
        self.forked: list[Any] = []
        self.can_fork = False
        self.rows: list[dict[str, Any]] = []
        self.decided = False

    def client(self) -> FluxClient:
        routes = [
            Route("/agents/{name}", self._agent),
            Route("/sessions", self._sessions),
            Route("/sessions/{id}", self._session),
            Route("/sessions/{id}/events", self._events),
            Route("/sessions/{id}/interrupts/{iid}", self._answer, methods=["POST"]),
        ]
        if self.can_fork:
            routes.append(Route("/sessions/{id}/fork", self._fork, methods=["GET", "POST"]))
        return FluxClient("http://localhost", transport=InProcessTransport(Starlette(routes=routes)))

    async def _agent(self, request: Request) -> Response:
        return JSONResponse({"definition": {"model": "scripted/test"}, "problems": []})

    async def _sessions(self, request: Request) -> Response:
        return JSONResponse({"items": self.rows, "next_cursor": None})

    async def _session(self, request: Request) -> Response:
        return JSONResponse(self.row())

    def row(self) -> dict[str, Any]:
        """The session's row."""
        usage = {"total": 0, "cost": 0.0}
        return {"id": "made-up", "head": len(self.log), "state": "idle", "title": "Made up", "usage": usage}

    async def _events(self, request: Request) -> Response:
        if "text/event-stream" not in request.headers["accept"]:
            after, limit = int(request.query_params["after"]), int(request.query_params["limit"])
            self.asked.append((after, limit))
            return JSONResponse({"items": self.log[after : after + limit], "next_cursor": None})
        after = int(request.headers["last-event-id"].split(".")[0])
        return StreamingResponse(self._follow(after), media_type="text/event-stream")

    async def _follow(self, after: int) -> AsyncIterator[bytes]:
        for entry in self.log[after:]:
            data = msgspec.json.encode(entry)
            yield b"id: %d.1.0\nevent: %b\ndata: %b\n\n" % (entry["seq"], entry["type"].encode(), data)

    async def _fork(self, request: Request) -> Response:
        if request.method == "GET":
            refusal = {"type": "invalid_input", "message": "GET is not possible", "details": {}}
            return JSONResponse({"error": refusal}, 405)
        self.forked.append(msgspec.json.decode(await request.body() or b"{}"))
        return JSONResponse({"id": "made-up-too"}, 201)

    async def _answer(self, request: Request) -> Response:
        given = await request.json()
        if self.decided:
            return JSONResponse(error_body(InterruptDecided()), InterruptDecided.status)
        self.answers.append(given)
        id = request.path_params["iid"]
        place = {"seq": len(self.log) + 1, "run_id": "r", "at": 0.0}
        self.log.append({**place, "type": "interrupt_answered", "id": id, "decision": given["decision"], "by": "me"})
        return JSONResponse({"id": "made-up", "seq": len(self.log)}, 202)


def run(number: int, *inside: dict[str, Any], end: bool = True) -> list[dict[str, Any]]:
    """The entries of a run."""
    parts = [{"type": "text", "text": f"ask {number}"}]
    log: list[dict[str, Any]] = [
        {"type": "user_message", "id": f"u{number}", "mode": "queue", "parts": parts},
        {"type": "run_started", "run": f"r{number}", "inputs": [f"u{number}"]},
        *inside,
    ]
    if end:
        log.append({"type": "chat_response", "content": "", "turn": number})
    return log


def answer(id: str, text: str) -> dict[str, Any]:
    """A whole answer."""
    return {"type": "assistant_message", "message_id": id, "parts": [{"type": "text", "text": text}]}
