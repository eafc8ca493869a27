"""Registered workflows of a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote

from flux.client.reader import Server


class WorkflowsClient:
    """What a client can do with workflows; their names are written "namespace/name", or "name" alone."""

    def __init__(self, client: Server) -> None:
        self._client = client

    async def register(self, content: bytes, file: str = "workflows.py") -> list[dict[str, Any]]:
        """Register every workflow of a Python file.

        :raises SourceInvalid, TooLarge: it cannot be registered
        """
        items: list[dict[str, Any]] = (await self._client.upload("/workflows", file, content))["items"]
        return items

    def list(self, namespace: str | None = None) -> AsyncGenerator[dict[str, Any], None]:
        """Every workflow, by namespace and name."""
        return self._client.pages("/workflows", namespace=namespace)

    async def get(self, name: str, version: int | None = None, *, source: bool = False) -> dict[str, Any]:
        """A workflow, or one version of it; `source`: with its file.

        :raises WorkflowNotFound: there is none
        """
        path = workflow_path(name) + (f"/versions/{version}" if version is not None else "")
        return await self._client.get(path, source=source)

    def versions(self, name: str) -> AsyncGenerator[dict[str, Any], None]:
        """The versions of a workflow, newest first."""
        return self._client.pages(workflow_path(name) + "/versions")

    async def delete(self, name: str) -> None:
        """Remove a workflow; its executions go on.

        :raises WorkflowNotFound: there is none
        """
        await self._client.request("DELETE", workflow_path(name))


def workflow_path(name: str) -> str:
    """The address of a workflow."""
    namespace, slash, rest = name.partition("/")
    return (
        f"/workflows/{quote(namespace, safe='')}/{quote(rest, safe='')}" if slash else workflow_path(f"default/{name}")
    )
