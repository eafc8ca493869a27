"""Sessions of a server: finding them, and what is done to one as a whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote

from flux.client.reader import Server


class SessionsClient:
    """Calls of /sessions; to talk in one, take its handle from `FluxClient.session` or `start_session`."""

    def __init__(self, client: Server) -> None:
        self._client = client

    def list(
        self, *, agent: str | None = None, state: str | None = None, instance: str | None = None, q: str | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Sessions, newest first; `q` searches titles and texts."""
        return self._client.pages("/sessions", agent=agent, state=state, instance=instance, q=q)

    async def get(self, id: str) -> dict[str, Any]:
        """A session's row.

        :raises SessionNotFound: there is none
        """
        return await self._client.get(_path(id))

    def messages(self, id: str) -> AsyncGenerator[dict[str, Any], None]:
        """Everything that was said in a session, oldest first.

        :raises SessionNotFound: there is none
        """
        return self._client.pages(_path(id, "/messages"))

    async def delete(self, id: str) -> None:
        """Remove a session that has ended, or in which nothing was ever said, with its log.

        :raises SessionNotFound, SessionBusy: it cannot be removed
        """
        await self._client.request("DELETE", _path(id))


def _path(id: str, more: str = "") -> str:
    return f"/sessions/{quote(id, safe='')}{more}"
