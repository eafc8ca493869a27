"""Agents of a server, as a program handles them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import quote

from flux.client.instances import DEFAULT, InstanceConnection, InstanceEvent
from flux.client.reader import Server


class AgentsClient:
    """Calls of /agents; each returns what the server shows. A definition is what `flux schema agent` describes."""

    def __init__(self, client: Server) -> None:
        self._client = client

    async def create(self, definition: Mapping[str, Any]) -> dict[str, Any]:
        """Store a new agent.

        :raises AgentExists: the name is taken
        :raises DefinitionInvalid: it cannot be
        """
        return await self._client.post("/agents", dict(definition))

    async def apply(self, definition: Mapping[str, Any]) -> dict[str, Any]:
        """Make this the newest version of the agent it names, which need not be there yet.

        :raises DefinitionInvalid: it cannot be
        """
        return await self._client.put(_path(str(definition.get("name", ""))), dict(definition), create=True)

    async def get(self, name: str) -> dict[str, Any]:
        """The newest version of an agent, with the `problems` that keep it from running.

        :raises AgentNotFound: there is none
        """
        return await self._client.get(_path(name))

    def list(self) -> AsyncGenerator[dict[str, Any], None]:
        """Every agent, by name."""
        return self._client.pages("/agents")

    def versions(self, name: str) -> AsyncGenerator[dict[str, Any], None]:
        """Every version of an agent, newest first."""
        return self._client.pages(_path(name, "/versions"))

    async def delete(self, name: str) -> None:
        """Remove an agent; its sessions go on with the version they began with.

        :raises AgentNotFound: there is none
        """
        await self._client.request("DELETE", _path(name))

    def connect(self, name: str, id: str) -> InstanceConnection:
        """An instance of an agent of the server's project; nothing is sent yet."""
        return InstanceConnection(self._client, name, id)

    async def invoke(self, name: str, id: str, message: str, *, session: str = DEFAULT) -> dict[str, Any]:
        """Prompt an instance once; see InstanceConnection.prompt."""
        return await self.connect(name, id).prompt(message, session=session)

    def stream(
        self, name: str, id: str, message: str, *, session: str = DEFAULT
    ) -> AsyncGenerator[InstanceEvent, None]:
        """Prompt an instance and watch; see InstanceConnection.stream."""
        return self.connect(name, id).stream(message, session=session)

    async def dispatch(
        self, name: str, id: str, input: Any, *, session: str = DEFAULT, key: str | None = None
    ) -> dict[str, Any]:
        """Give an instance input to work on when its turn comes; see InstanceConnection.dispatch."""
        return await self.connect(name, id).dispatch(input, session=session, key=key)


def _path(name: str, more: str = "") -> str:
    return f"/agents/{quote(name, safe='')}{more}"
