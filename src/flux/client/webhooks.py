"""Webhooks of a server, as a program handles them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any
from urllib.parse import quote

from flux.client.reader import Server


class WebhooksClient:
    """Calls of /webhooks; each returns what the server shows."""

    def __init__(self, client: Server) -> None:
        self._client = client

    async def create(
        self, name: str, url: str, events: Sequence[str] = (), *, agent: str | None = None
    ) -> dict[str, Any]:
        """Store a new webhook of these events (none: of all); `secret` in the answer is shown this once.

        :raises WebhookExists: the name is taken
        :raises InvalidInput: the URL may not be told, or there is no such event
        """
        body = {"name": name, "url": url, "events": list(events)} | ({"agent": agent} if agent else {})
        return await self._client.post("/webhooks", body)

    async def get(self, name: str) -> dict[str, Any]:
        """A webhook.

        :raises WebhookNotFound: there is none
        """
        return await self._client.get(_path(name))

    def list(self) -> AsyncGenerator[dict[str, Any], None]:
        """Every webhook, by name."""
        return self._client.pages("/webhooks")

    async def delete(self, name: str) -> None:
        """Remove a webhook; what it was still to be told is not."""
        await self._client.request("DELETE", _path(name))

    def deliveries(self, name: str, state: str | None = None) -> AsyncGenerator[dict[str, Any], None]:
        """What it was told and is to be told, newest first; `state` is pending, delivered or failed."""
        return self._client.pages(_path(name, "/deliveries"), state=state)

    async def redeliver(self, name: str, delivery: str) -> dict[str, Any]:
        """Tell something again, with the same id."""
        return await self._client.post(_path(name, f"/deliveries/{quote(delivery, safe='')}/redeliver"))


def _path(name: str, more: str = "") -> str:
    return f"/webhooks/{quote(name, safe='')}{more}"
