"""The MCP connections of a process: one per server and person, shared by all sessions, opened when first needed."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux.tools.mcp.config import McpServer, named
from flux.tools.mcp.surroundings import Introduction, Vault

if TYPE_CHECKING:
    from flux.tools.mcp.link import Link

#: The variables that a server's program inherits, as a shell does.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR")


#: Servers, counted once for each person, of which the tools are remembered.
MOST_LINKS = 1_000


class McpPool:
    """Every connection. `cwd` is where programs run; `window` is how many seconds a call waits for a person.

    `callback` is where a browser comes back to after a login; `document` is the address that tells an authorisation
    server who we are, if it can read one.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        cwd: str,
        *,
        window: float = 30.0,
        callback: str = "http://localhost:8000/oauth/callback",
        document: str | None = None,
        idle: float = 300.0,
        us: Introduction = Introduction(),  # noqa: B008 - it is frozen
        hosts: Sequence[str] = (),
    ) -> None:
        self.us = us
        #: Hosts that may be reached although they are not public.
        self.hosts = hosts
        self.environment = {name: environment[name] for name in ENVIRONMENT if name in environment}
        self.environment.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
        self.cwd = cwd
        self.window = window
        self.callback = callback
        self.document = document
        self.idle = idle
        #: Told before a person is sent to log in.
        self.on_login: Callable[[], Awaitable[None]] | None = None
        self._links: dict[tuple[str, str, str], Link] = {}
        self._module: Any = None
        self._loading = asyncio.Lock()

    async def link(self, server: McpServer, tenant: str, principal: str, vault: Vault) -> Link:
        """What a person has of a server; nothing is opened yet."""
        if self._module is None:
            async with self._loading:
                # Half a second that a process without MCP never pays, and that nobody else waits for.
                self._module = await asyncio.to_thread(importlib.import_module, "flux.tools.mcp.link")
        key = (server.key, tenant, principal)
        found: Link = self._links.pop(key) if key in self._links else self._module.Link(self, server, vault)
        self._links[key] = found  # the newest is the last
        self._forget()
        return found

    def troubles(self, servers: Sequence[McpServer], tenant: str, principal: str) -> list[str]:
        """What is known here of servers that a person cannot use now; nothing is opened to find out."""
        links = ((name, self._links.get((server.key, tenant, principal))) for server, name in named(servers))
        return [
            f"the MCP server {name} cannot be used: {link.trouble}" for name, link in links if link and link.trouble
        ]

    def _forget(self) -> None:
        """Know no more people's servers than there is memory for; what rests longest goes first."""
        resting = [key for key, link in self._links.items() if link.rests]
        for key in resting[: max(0, len(self._links) - MOST_LINKS)]:
            del self._links[key]

    async def close(self) -> None:
        """Close every connection."""
        links, self._links = list(self._links.values()), {}
        await asyncio.gather(*(link.close() for link in links))
