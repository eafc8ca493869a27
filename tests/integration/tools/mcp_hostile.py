"""An MCP server of 2025-11-25 written by hand, so that it can say anything at all, over HTTP or over stdio."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from tests.integration.tools.mcp_server import listening

#: The result of a call, or a whole response of its own.
Answer = Callable[[dict[str, Any]], Any]

OBJECT = {"type": "object"}


def tool(name: str, **more: Any) -> dict[str, Any]:
    """A tool's definition."""
    return {"name": name, "description": f"Do {name}.", "inputSchema": OBJECT} | more


def text(said: str, **more: Any) -> dict[str, Any]:
    """A result."""
    return {"content": [{"type": "text", "text": said}]} | more


class Hostile:
    """`tools` answers tools/list by its cursor, `calls` each tool by its name. `seen` are the requests."""

    def __init__(self, *tools: dict[str, Any], **calls: Answer) -> None:
        self.pages: Callable[[str | None], dict[str, Any]] = lambda _: {"tools": list(tools)}
        self.calls = calls
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.sessions: set[str] = set()
        self.asked = asyncio.Event()
        self._count = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await (await self._answer(Request(scope, receive)))(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            self.seen.append((request.method, {}))
            self.asked.set()
            return PlainTextResponse("", 405)
        message = await request.json()
        method, id = message["method"], message.get("id")
        self.seen.append((method, dict(request.headers)))
        self.asked.set()
        session = request.headers.get("mcp-session-id")
        if session is not None and session not in self.sessions:
            return PlainTextResponse("no such session", 404)
        if id is None:
            return PlainTextResponse("", 202)
        headers = {}
        if method == "initialize":
            self._count += 1
            headers["mcp-session-id"] = f"session-{self._count}"
            self.sessions.add(headers["mcp-session-id"])
        found = await self.respond(method, message.get("params") or {})
        if isinstance(found, Response):
            return found
        if hasattr(found, "__aiter__"):
            return StreamingResponse(_events(found, id), media_type="text/event-stream")
        return JSONResponse({"jsonrpc": "2.0", "id": id, **found}, headers=headers)

    async def respond(self, method: str, params: dict[str, Any]) -> Any:
        """What stands in the answer to a request."""
        if method == "initialize":
            about = {"protocolVersion": "2025-11-25", "serverInfo": {"name": "hostile", "version": "1"}}
            return {"result": about | {"capabilities": {"tools": {"listChanged": True}}}}
        if method == "tools/list":
            return {"result": self.pages(params.get("cursor"))}
        if method == "tools/call" and params["name"] in self.calls:
            found = self.calls[params["name"]](params)
            found = await found if asyncio.iscoroutine(found) else found
            return {"result": found} if isinstance(found, dict) and "error" not in found else found
        return {"error": {"code": -32601, "message": "Method not found"}}


async def _events(messages: AsyncIterator[dict[str, Any]], id: Any) -> AsyncIterator[bytes]:
    async for message in messages:
        whole = {"jsonrpc": "2.0", **message} | ({} if "method" in message else {"id": id})
        yield b"event: message\ndata: " + json.dumps(whole).encode() + b"\n\n"


@asynccontextmanager
async def hostile(server: Hostile, port: int = 0) -> AsyncIterator[str]:
    """The URL of a server."""
    async with listening(server, port) as address:
        yield f"{address}/mcp"


def over_stdio() -> None:
    """The same kind of server as a program, whose one argument says what it does badly."""
    badly = sys.argv[1]
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        server = Hostile(tool("good"), tool("bad"), good=lambda _: text("good"), bad=_bad(badly))
        found = asyncio.run(server.respond(message["method"], message.get("params") or {}))
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **found}) + "\n")
        sys.stdout.flush()


def _bad(how: str) -> Answer:
    def bad(params: dict[str, Any]) -> Any:
        match how:
            case "huge":
                return text("x" * 50_000_000)
            case "noise":
                sys.stdout.write("this is no JSON\n" * 1000)
            case "flood":
                note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
                sys.stdout.write((json.dumps(note) + "\n") * 5_000)
            case "die":
                sys.stderr.write("these were my last words\n")
                sys.stderr.flush()
                sys.exit(3)
        return text("survived")

    return bad


if __name__ == "__main__":
    over_stdio()
