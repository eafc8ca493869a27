"""The kit of MCP: the tools of an agent's servers, and a section of its prompt while one of them is down."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flux.agents.history.transcript import Transcript
from flux.agents.mcp.logins import PersonVault
from flux.agents.turn.kits import Kit
from flux.agents.turn.loop import Session
from flux.engine.configuration.secrets import Secrets
from flux.errors import Unavailable
from flux.events import ContextFrozen
from flux.settings import Settings
from flux.tools.base import Tool
from flux.tools.mcp.config import McpServer, server_names, tool_name
from flux.tools.mcp.pool import McpPool

if TYPE_CHECKING:
    from flux.tools.mcp.connection import Listed
    from flux.tools.mcp.link import Link

HEADING = "# MCP servers that cannot be used now"


def mcp_pool(settings: Settings, environment: Mapping[str, str], cwd: str) -> McpPool:
    """The connections of a process."""
    base = (settings.public_url or f"http://localhost:{settings.server_port}").rstrip("/")
    # Who reads the document must be able to reach it, and wants it over https.
    document = f"{base}/oauth/client.json" if base.startswith("https://") else None
    return McpPool(
        environment,
        cwd,
        window=settings.elicitation_window,
        callback=f"{base}/oauth/callback",
        document=document,
        hosts=settings.web_fetch_hosts,
    )


class McpKits:
    """Makes kits of MCP servers for sessions."""

    def __init__(self, pool: McpPool, secrets: Secrets) -> None:
        self._pool = pool
        self._secrets = secrets

    async def __call__(self, session: Session) -> Kit | None:
        """What the session's agent has of its servers now.

        :raises Unavailable: a server that the agent requires cannot be used
        """
        definition = session.policy.definition
        servers = definition.mcp_servers
        if not servers or definition.approval_mode == "never":
            return None
        scope = session.run.scope
        vault = PersonVault(self._secrets, scope)
        links = [await self._pool.link(server, scope.tenant, scope.principal, vault) for server in servers]
        await asyncio.gather(*(link.offer() for link in links))
        parts = [
            _Part(server, name, link, session.log, self._pool.window)
            for server, name, link in zip(servers, server_names(servers), links, strict=True)
        ]
        tools = tuple(tool for part in parts for tool in part.tools())
        section = _section([part.trouble for part in parts if part.trouble])
        return Kit(
            tools,
            section,
            stale=lambda: any(part.stale for part in parts),
            outdates=lambda context: _outdated(context, tools, section),
            absent={part.start: part.absent for part in parts if part.trouble},
        )


class _Part:
    """One server in one session."""

    def __init__(self, server: McpServer, name: str, link: Link, log: Transcript, window: float) -> None:
        self._server = server
        self._name = name
        self._link = link
        self._log = log
        self._window = window
        self._version = link.version
        if link.listing is None and server.required and not link.wants_login:
            raise Unavailable(f"the MCP server {name}, which this agent requires, cannot be used: {link.trouble}")
        self._login = tool_name(name, "log_in")
        remedy = f"; {self._login} asks for that" if link.wants_login else ""
        self.start = tool_name(name, "")
        self.absent = f"The MCP server {name} cannot be used now: {link.trouble}{remedy}"
        self.trouble = f"- {name}: {link.trouble}{remedy}" if link.trouble else ""

    @property
    def stale(self) -> bool:
        """Whether the server offers something else by now."""
        return self._link.stale or self._link.version != self._version

    def tools(self) -> Iterator[Tool]:
        """Its tools; while it is down, those that the session knew."""
        if self._server.auth == "oauth":
            yield self._login_tool()
        calls = importlib.import_module("flux.tools.mcp.calls")
        for name, listed in self._listed():
            if self._server.tools is None or listed.name in self._server.tools:
                run = calls.ServerTool(
                    self._link, self._name, listed, timeout=self._server.timeout, window=self._window
                )
                yield self._tool(name, listed, run)

    def _login_tool(self) -> Tool:
        login = importlib.import_module("flux.tools.mcp.login")
        return Tool(
            name=self._login,
            description=f"Log the person in to {self._name}, when its tools are missing or refuse to work.",
            parameters={"type": "object", "properties": {}},
            run=login.LoginTool(self._link, self._name, self._window),
            effect="idempotent",
            source=f"the MCP server {self._name}",
        )

    def _listed(self) -> Iterator[tuple[str, Listed]]:
        if self._link.listing is not None:
            yield from ((tool_name(self._name, listed.name), listed) for listed in self._link.listing)
            return
        recalled = importlib.import_module("flux.tools.mcp.connection").Listed
        for tool in self._log.context.tools if self._log.context else ():
            mark = tool.get("mark", {})
            if mark.get("server") == self._name:
                about = (mark["tool"], tool["description"], tool["parameters"], None, mark["effect"], mark["digest"])
                yield tool["name"], recalled(*about)

    def _tool(self, name: str, listed: Listed, run: Any) -> Tool:
        trusted = self._log.marks.get(name, {}).get("digest", listed.digest)
        changed = f"{self._name} has changed this tool since the session began: {listed.description[:300]}"
        return Tool(
            name=name,
            description=listed.description,
            parameters=listed.input_schema,
            run=run,
            effect=listed.effect,
            source=f"the MCP server {self._name}",
            mark={"server": self._name, "tool": listed.name, "effect": listed.effect, "digest": trusted},
            alarm="" if trusted == listed.digest else f"{changed} [{listed.digest}]",
        )


def _section(troubles: list[str]) -> str:
    if not troubles:
        return ""
    return f"{HEADING}\n\nTheir tools come back with them.\n\n" + "\n".join(troubles)


def _outdated(context: ContextFrozen, tools: tuple[Tool, ...], section: str) -> bool:
    """Whether a server has come back, or offers more than before."""
    known = {tool["name"] for tool in context.tools}
    return any(tool.name not in known for tool in tools) or (HEADING in context.system and not section)
