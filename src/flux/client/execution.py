"""Executions on a server: one, and finding them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from flux.client.reader import STREAM, Event, LogReader, Server


class ExecutionHandle(LogReader):
    """An execution on a server. `cursor` is how far this client has read its log."""

    def __init__(self, client: Server, id: str, cursor: str | None = "0") -> None:
        super().__init__(client, f"/executions/{id}", cursor)
        self.id = id

    @classmethod
    @asynccontextmanager
    async def begun(
        cls, client: Server, path: str, input: Any, cursor: str = "0", **query: Any
    ) -> AsyncIterator[tuple[ExecutionHandle, AsyncGenerator[Event, None]]]:
        """Start an execution, or resume it, at `path`, and follow it from there on, or from `cursor`.

        :raises FluxError: as the server says
        :raises ServerUnreachable: there is no server
        """
        asked = urlencode({name: value for name, value in query.items() if value is not None})
        answer = await client.posted(f"{path}?{asked}" if asked else path, STREAM, input)
        handle = cls(client, answer.headers["flux-execution"], cursor)
        async with aclosing(answer), aclosing(handle.events(answer.chunks())) as events:
            yield handle, events

    async def info(self, *, detailed: bool = False) -> dict[str, Any]:
        """The execution as JSON, with its events if `detailed`.

        :raises ExecutionNotFound: there is none
        """
        return await self._client.get(self._path, detailed=detailed)

    async def cancel(self) -> dict[str, Any]:
        """Ask it to stop, with all it started."""
        return await self._client.post(f"{self._path}/cancel")

    async def rename(self, name: str) -> dict[str, Any]:
        """Change the name that people see."""
        return await self._client.put(f"{self._path}/name", {"name": name})

    def approvals(self, *, status: str | None = None) -> AsyncGenerator[dict[str, Any], None]:
        """What it asks, or asked, to be approved, newest first; `status` is open, approved, rejected, …"""
        return self._client.pages(f"{self._path}/approvals", status=status)

    async def approve(self, id: str, *, reason: str | None = None, always: bool = False) -> dict[str, Any]:
        """Let a task run; `always`: in this execution it is not asked about again.

        :raises InterruptNotFound, InterruptDecided: there is no such open question
        """
        return await self._client.post(f"{self._path}/approvals/{id}/approve", {"reason": reason, "always": always})

    async def reject(self, id: str, *, reason: str | None = None) -> dict[str, Any]:
        """Do not let a task run.

        :raises InterruptNotFound, InterruptDecided: there is no such open question
        """
        return await self._client.post(f"{self._path}/approvals/{id}/reject", {"reason": reason})


class ExecutionsClient:
    """Calls of /executions; what is done to one is done by its handle, from `FluxClient.execution`."""

    def __init__(self, client: Server) -> None:
        self._client = client

    def list(
        self, *, state: str | None = None, workflow: str | None = None, agent: str | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Executions of workflows, and sessions, newest first."""
        return self._client.pages("/executions", state=state, workflow=workflow, agent=agent)

    def approvals(self, *, status: str | None = None) -> AsyncGenerator[dict[str, Any], None]:
        """Approvals that all executions ask, or asked, for, newest first."""
        return self._client.pages("/approvals", status=status)


#: An execution that has begun to be followed.
Begun = AbstractAsyncContextManager[tuple[ExecutionHandle, AsyncGenerator[Event, None]]]
