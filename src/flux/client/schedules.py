"""Schedules of a server, as a program handles them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote

from flux.client.reader import Server


class SchedulesClient:
    """Calls of /schedules; each returns what the server shows. `fields` are those of POST /schedules."""

    def __init__(self, client: Server) -> None:
        self._client = client

    async def create(self, /, name: str, **fields: Any) -> dict[str, Any]:
        """Store a new schedule.

        :raises ScheduleExists: the name is taken
        :raises InvalidInput, AgentNotFound, WorkflowNotFound: it cannot be
        """
        return await self._client.post("/schedules", {"name": name} | _given(fields))

    async def replace(self, /, name: str, **fields: Any) -> dict[str, Any]:
        """Change a schedule; what is not given gets its default.

        :raises ScheduleNotFound: there is none
        """
        return await self._client.put(_path(name), _given(fields))

    async def get(self, name: str) -> dict[str, Any]:
        """A schedule.

        :raises ScheduleNotFound: there is none
        """
        return await self._client.get(_path(name))

    def list(self) -> AsyncGenerator[dict[str, Any], None]:
        """Every schedule, by name."""
        return self._client.pages("/schedules")

    async def pause(self, name: str) -> dict[str, Any]:
        """Let nothing start until `resume`."""
        return await self._client.post(_path(name, "/pause"))

    async def resume(self, name: str) -> dict[str, Any]:
        """Go on with the next time from now."""
        return await self._client.post(_path(name, "/resume"))

    async def delete(self, name: str) -> None:
        """Remove a schedule and its history."""
        await self._client.request("DELETE", _path(name))

    def history(self, name: str) -> AsyncGenerator[dict[str, Any], None]:
        """What became of its times, newest first."""
        return self._client.pages(_path(name, "/history"))


def _path(name: str, more: str = "") -> str:
    return f"/schedules/{quote(name, safe='')}{more}"


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
