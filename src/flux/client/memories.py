"""Long-term memories of a server, as a program handles them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote, urlencode

from flux.client.reader import Server


class MemoriesClient:
    """Calls of /memories. `agent` says whose memory, without it that in Flux's own database; `scope` which part."""

    def __init__(self, client: Server) -> None:
        self._client = client

    def list(self, *, agent: str | None = None, scope: str | None = None) -> AsyncGenerator[dict[str, Any], None]:
        """Every memory, by scope and key; values are cut."""
        return self._client.pages("/memories", agent=agent, scope=scope)

    async def get(self, key: str, *, agent: str | None = None, scope: str | None = None) -> dict[str, Any]:
        """A memory; without agent and scope the one that has this key.

        :raises MemoryNotFound, AgentNotFound: there is none
        :raises InvalidInput: several have it
        """
        return await self._client.get(_path(key), agent=agent, scope=scope)

    async def forget(self, key: str, *, agent: str | None = None, scope: str | None = None) -> dict[str, Any]:
        """Forget a memory; without agent and scope the one that has this key.

        :raises MemoryNotFound, AgentNotFound: there is none
        :raises InvalidInput: several have it
        """
        query = urlencode({name: value for name, value in (("agent", agent), ("scope", scope)) if value is not None})
        return await self._client.request("DELETE", _path(key) + (f"?{query}" if query else ""))


def _path(key: str) -> str:
    return f"/memories/{quote(key, safe='')}"
