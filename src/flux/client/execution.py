"""An execution on a server."""

from __future__ import annotations

from typing import Any

from flux.client.reader import LogReader, Server


class ExecutionHandle(LogReader):
    """An execution on a server. `cursor` is how far this client has read its log."""

    def __init__(self, client: Server, id: str, cursor: str | None = "0") -> None:
        super().__init__(client, f"/executions/{id}", cursor)
        self.id = id

    async def info(self, *, detailed: bool = False) -> dict[str, Any]:
        """The execution as JSON, with its events if `detailed`.

        :raises ExecutionNotFound: there is none
        """
        return await self._client.get(self._path, detailed=detailed)

    async def cancel(self) -> dict[str, Any]:
        """Ask it to stop, with all it started."""
        return await self._client.post(f"{self._path}/cancel")
