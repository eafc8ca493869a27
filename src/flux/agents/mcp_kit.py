"""The kit of MCP: the tools of an agent's servers, and a section of its prompt while one of them is down."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from flux.agents.kits import Kit
from flux.agents.loop import Session
from flux.engine.secrets import Secrets
from flux.errors import SecretNotFound, Unavailable
from flux.store.database import Scope
from flux.tools.base import Tool
from flux.tools.mcp.config import McpServer, server_names, tool_name
from flux.tools.mcp.pool import McpPool


class PersonVault:
    """The secrets that one person's connections use."""

    def __init__(self, secrets: Secrets, scope: Scope) -> None:
        self._secrets = secrets
        self._scope = scope

    async def read(self, name: str) -> str:
        """A secret that was set by name.

        :raises SecretNotFound: there is none
        """
        return await self._secrets.get(self._scope, name)

    async def load(self, name: str) -> str | None:
        """What was kept under a name of our own, None when nothing was."""
        try:
            return await self._secrets.get(self._scope, name)
        except SecretNotFound:
            return None

    async def save(self, name: str, value: str) -> None:
        """Keep something, readable by nobody else."""
        await self._secrets.set(self._scope, name, value)

    async def forget(self, name: str) -> None:
        """Keep it no longer."""
        await self._secrets.remove(self._scope, name)


class McpKits:
    """Makes kits of MCP servers for sessions."""

    def __init__(self, pool: McpPool, secrets: Secrets) -> None:
        self._pool = pool
        self._secrets = secrets

    async def __call__(self, session: Session) -> Kit | None:
        """What the session's agent has of its servers now.

        :raises Unavailable: a server that the agent requires cannot be used
        """
        servers = session.policy.definition.mcp_servers
        if not servers:
            return None
        scope = session.run.scope
        vault = PersonVault(self._secrets, scope)
        links = [await self._pool.link(server, scope.tenant, scope.principal, vault) for server in servers]
        listings = await asyncio.gather(*(link.offer() for link in links))
        tools: list[Tool] = []
        troubles: list[str] = []
        for server, name, link, listing in zip(servers, server_names(servers), links, listings, strict=True):
            if listing is None and server.required:
                raise Unavailable(f"the MCP server {name}, which this agent requires, cannot be used: {link.trouble}")
            if link.trouble is not None:
                troubles.append(f"- {name}: {link.trouble}")
            tools += self._tools(server, name, link, listing or ())
        return Kit(tuple(tools), _section(troubles))

    def _tools(self, server: McpServer, name: str, link: Any, listing: Any) -> list[Tool]:
        calls = importlib.import_module("flux.tools.mcp.calls")
        return [
            Tool(
                name=tool_name(name, listed.name),
                description=listed.description,
                parameters=listed.input_schema,
                run=calls.ServerTool(link, name, listed, timeout=server.timeout, window=self._pool.window),
                effect=listed.effect,
                source=f"the MCP server {name}",
            )
            for listed in listing
            if server.tools is None or listed.name in server.tools
        ]


def _section(troubles: list[str]) -> str:
    if not troubles:
        return ""
    return "# MCP servers that cannot be used now\n\nTheir tools come back with them.\n\n" + "\n".join(troubles)
