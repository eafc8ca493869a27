"""A real MCP server with one tool for each thing that tests look at; as a program it speaks over stdio."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import mcp_types as types
import uvicorn
from mcp.server.mcpserver import Context, MCPServer

PIXEL = base64.b64encode(b"\x89PNG pixel").decode()


def build(name: str = "bench") -> MCPServer:
    """The server."""
    server = MCPServer(name)
    _plain(server)
    _content(server)
    return server


def _plain(server: MCPServer) -> None:
    @server.tool(annotations=types.ToolAnnotations(read_only_hint=True))
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    def fail() -> str:
        """Fail."""
        raise ValueError("it went wrong")

    @server.tool()
    def where() -> str:
        """Say which process this is, and its environment."""
        return f"{os.getpid()} {sorted(os.environ)}"

    @server.tool()
    async def hang() -> str:
        """Never end."""
        await asyncio.Event().wait()
        return ""

    @server.tool()
    async def talk(context: Context[Any, Any]) -> str:
        """Tell how far it is."""
        for step in range(3):
            await context.report_progress(step, 3, f"step {step}")
        return "told"

    @server.tool()
    def die() -> str:
        """End the process."""
        sys.stderr.write("these were my last words\n")
        sys.stderr.flush()
        os._exit(3)


def _content(server: MCPServer) -> None:
    @server.tool(structured_output=False)
    def everything() -> list[Any]:
        """One block of each kind."""
        return [
            types.TextContent(type="text", text="some text"),
            types.ImageContent(type="image", data=PIXEL, mime_type="image/png"),
            types.ResourceLink(type="resource_link", name="notes", uri="file:///notes.txt", mime_type="text/plain"),
            types.EmbeddedResource(
                type="resource",
                resource=types.TextResourceContents(uri="test://a", text="inside a", mime_type="text/plain"),
            ),
        ]

    @server.tool()
    def shaped() -> dict[str, Any]:
        """A value with a structure."""
        return {"city": "Bern", "degrees": 21}

    @server.tool(structured_output=False)
    def huge(size: int) -> str:
        """So many characters."""
        return "x" * size


@asynccontextmanager
async def serving(server: MCPServer, way: Literal["http", "sse"] = "http", **options: Any) -> AsyncIterator[str]:
    """The URL of a server on loopback while the context is open."""
    app = server.sse_app() if way == "sse" else server.streamable_http_app(**options)
    async with listening(app) as address:
        yield f"{address}/{'sse' if way == 'sse' else 'mcp'}"


@asynccontextmanager
async def listening(app: Any, port: int = 0) -> AsyncIterator[str]:
    """The address of an application on loopback."""
    config = uvicorn.Config(app, port=port, log_level="error", ws="none", timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    socket = config.bind_socket()
    task = asyncio.create_task(running.serve(sockets=[socket]))
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        running.should_exit = True
        await task
        socket.close()


if __name__ == "__main__":
    build().run("stdio")
