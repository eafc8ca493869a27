"""A real MCP server whose tools ask people; as a program it speaks over stdio, `old` makes it one of 2025-11-25."""

from __future__ import annotations

import functools
import sys
from typing import Annotated, Any

import mcp_types as types
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.server.runner import serve_loop
from mcp.shared.exceptions import MCPError, UrlElicitationRequiredError
from pydantic import BaseModel, Field

IDEMPOTENT = types.ToolAnnotations(idempotent_hint=True)
READ = types.ToolAnnotations(read_only_hint=True)


class Booking(BaseModel):
    """The form."""

    seats: int = Field(ge=1, le=9)
    note: str = "none"


class Known:
    """What the server remembers: the calls that began, and the accounts that were connected."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.connected: set[str] = set()


async def _old(ctx: Any, call_next: Any) -> Any:
    """A server that has never heard of the newer protocol."""
    if ctx.method == "server/discover":
        raise MCPError(types.METHOD_NOT_FOUND, "Method not found")
    return await call_next(ctx)


async def _run_old(server: Any, read: Any, write: Any, options: Any) -> None:
    async with server.lifespan(server) as state:
        await serve_loop(server, read, write, lifespan_state=state, init_options=options)


def make_old(server: MCPServer) -> None:
    """Make a server one of 2025-11-25."""
    inner: Any = server._lowlevel_server
    inner.middleware.append(_old)
    inner.run = functools.partial(_run_old, inner)


async def how_many() -> Elicit[Booking]:
    """What a booking has to know."""
    return Elicit("How many seats?", Booking)


def build(known: Known, *, old: bool = False) -> MCPServer:
    """The server."""
    server = MCPServer("asking")
    if old:
        make_old(server)

    @server.tool()
    def book(booking: Annotated[Booking, Resolve(how_many)]) -> str:
        """Book seats."""
        return f"booked {booking.seats}, note {booking.note}"

    @server.tool(annotations=IDEMPOTENT)
    async def reserve(context: Context[Any, Any]) -> str:
        """Reserve seats; it asks while it runs."""
        known.began.append("reserve")
        outcome = await context.elicit("How many seats?", Booking)
        return f"{outcome.action} {outcome.data.seats if outcome.action == 'accept' else ''}".strip()

    @server.tool()
    async def charge(context: Context[Any, Any]) -> str:
        """Charge for it; it asks while it runs, and must not run twice."""
        known.began.append("charge")
        outcome = await context.elicit("Which card?", Booking)
        return f"charged: {outcome.action}"

    @server.tool(annotations=READ)
    async def echo(label: str, context: Context[Any, Any]) -> str:
        """Ask for the label."""
        outcome = await context.elicit(f"What is {label}?", Booking)
        return f"{label} is {outcome.data.seats if outcome.action == 'accept' else outcome.action}"

    @server.tool(annotations=IDEMPOTENT)
    async def visit(url: str, context: Context[Any, Any]) -> str:
        """Send the person to an address."""
        return (await context.elicit_url("Please look at this", url, "visit-1")).action

    _add_accounts(server, known)
    _add_growing(server, old)
    return server


def _add_growing(server: MCPServer, old: bool) -> None:
    @server.tool()
    async def grow(context: Context[Any, Any]) -> str:
        """Learn something new."""
        server.add_tool(lambda: "new", name="grown", description="New.")
        if old:
            await context.session.send_tool_list_changed()
        else:
            await context.notify_tools_changed()
        return "grown"


def _add_accounts(server: MCPServer, known: Known) -> None:
    @server.tool()
    def files(accounts: list[str]) -> str:
        """List files of accounts that must be connected first."""
        missing = [name for name in accounts if name not in known.connected]
        if missing:
            raise UrlElicitationRequiredError(
                [
                    types.ElicitRequestURLParams(
                        message=f"Connect {name}", url=f"https://login.example/{name}?state=1", elicitation_id=name
                    )
                    for name in missing
                ]
            )
        return f"files of {', '.join(accounts)}"


if __name__ == "__main__":
    build(Known(), old="old" in sys.argv).run("stdio")
