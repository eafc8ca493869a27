"""`connect_mcp_server`: the tools of an MCP server as tools of the application."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn

from pydantic import ValidationError

import flux
from flux.agents.define.definition import faults_of
from flux.agents.define.tool import ToolCallContext, ToolDefinition
from flux.errors import DefinitionInvalid, InvalidInput, Unavailable
from flux.tools.base import ToolContext
from flux.tools.mcp.config import McpServer, tool_name
from flux.tools.mcp.pool import McpPool
from flux.tools.mcp.surroundings import Introduction

Transport = Literal["streamable-http", "sse", "stdio"]


class McpServerConnection:
    """A connection to an MCP server, closed by `aclose()` or at the end of `async with`."""

    def __init__(self, name: str, tools: tuple[ToolDefinition, ...], pool: McpPool) -> None:
        self.name = name
        self.tools = tools
        self._pool = pool

    async def aclose(self) -> None:
        """Close the connection; calls of its tools fail from now on."""
        await self._pool.close()

    async def __aenter__(self) -> McpServerConnection:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()


async def connect_mcp_server(  # noqa: PLR0913 - the documented parameters
    name: str,
    *,
    url: str | None = None,
    command: str | Sequence[str] | None = None,
    transport: Transport | None = None,
    headers: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    http_client: Any = None,
    client_name: str = "flux",
    client_version: str = flux.__version__,
) -> McpServerConnection:
    """Connect to a server at `url`, or to a program that `command` starts, and list its tools.

    Their names are `mcp__SERVER__TOOL`. `http_client` is an httpx2.AsyncClient; `timeout` of one call is in seconds.
    `transport` None: streamable HTTP, or server-sent events with a server that knows no other.

    :raises DefinitionInvalid: the server cannot be one
    :raises Unavailable: it cannot be used
    """
    server = _server(name, url, command, transport, {"headers": headers, "env": env, "timeout": timeout})
    told = transport if transport in ("sse", "streamable-http") else None
    us = Introduction(client_name, client_version, http_client, told)
    pool = McpPool(os.environ, os.getcwd(), us=us)
    connections: Any = importlib.import_module("flux.tools.mcp.connection")
    link = await pool.link(server, "", "", Nobody())
    try:
        await link.ready()
        tools = _tools(name, server, link, pool)
    except (connections.Down, DefinitionInvalid) as error:
        await pool.close()
        if isinstance(error, DefinitionInvalid):
            raise
        raise Unavailable(f"the MCP server {name} cannot be used: {error}") from error
    return McpServerConnection(name, tools, pool)


def _server(
    name: str,
    url: str | None,
    command: str | Sequence[str] | None,
    transport: Transport | None,
    more: Mapping[str, Any],
) -> McpServer:
    if transport not in (None, "streamable-http", "sse", "stdio"):
        raise DefinitionInvalid(
            f"MCP server {name}: transport must be streamable-http, sse or stdio, not {transport!r}", field="transport"
        )
    if transport is not None and (transport == "stdio") != (command is not None):
        raise DefinitionInvalid(
            f"MCP server {name}: stdio is the transport of a command, the others are of a url", field="transport"
        )
    words = command if command is None or isinstance(command, str) else list(command)
    fields = {"name": name, "url": url, "command": words, **more}
    try:
        return McpServer.model_validate({key: value for key, value in fields.items() if value is not None})
    except ValidationError as error:
        raise DefinitionInvalid(f"MCP server {name}: {faults_of(error)}") from error


def _tools(name: str, server: McpServer, link: Any, pool: McpPool) -> tuple[ToolDefinition, ...]:
    calls: Any = importlib.import_module("flux.tools.mcp.calls")
    found: dict[str, ToolDefinition] = {}
    for listed in link.listing or ():
        called = tool_name(name, listed.name)
        if called in found:
            raise DefinitionInvalid(f"the MCP server {name} has two tools that would be called {called}", field="tools")
        run = calls.ServerTool(link, name, listed, timeout=server.timeout, window=pool.window)
        found[called] = ToolDefinition(
            name=called,
            description=listed.description,
            parameters=listed.input_schema,
            execute=run,
            effect=listed.effect,
            timeout=None,
            requires_approval=False,
            invoke=_invoke(run),
            source=f"the MCP server {name}",
        )
    return tuple(found.values())


def _invoke(run: Any) -> Any:
    def invoke(args: dict[str, Any], _: ToolCallContext, inner: ToolContext) -> Any:
        return run(args, inner)

    return invoke


class Nobody:
    """The secrets of a connection that code has made: there are none, it gives what it has by itself."""

    async def read(self, name: str) -> str:
        """None can be read."""
        self._refuse()

    async def load(self, name: str) -> str | None:
        """None was kept."""
        return None

    async def save(self, name: str, value: str) -> None:
        """None can be kept."""
        self._refuse()

    async def forget(self, name: str) -> None:
        """There is nothing to forget."""

    async def state(self, session: str, nonce: str) -> str:
        """No login can begin."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InvalidInput("connect_mcp_server knows no secrets and no logins; give the token in headers=")
