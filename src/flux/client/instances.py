"""An instance of a project's agent, as a program talks to it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import httpx

from flux.client.patience import RETRY
from flux.client.reader import STREAM, Server
from flux.client.sse import Parser
from flux.errors import ServerUnreachable

DEFAULT = "default"
#: The events that end a stream.
LAST = ("end", "waiting", "error")


class InstanceEvent(NamedTuple):
    """What happens while a prompt is worked on: start, delta, tool_start, tool_end, then end, waiting or error."""

    type: str
    data: dict[str, Any]


class InstanceConnection:
    """Talks to one instance. It holds nothing open: entering it is good style, and not needed."""

    def __init__(self, client: Server, agent: str, id: str) -> None:
        self.agent = agent
        self.id = id
        self._client = client
        self._path = f"/agents/{quote(agent, safe='')}/{quote(id, safe='')}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    async def prompt(self, message: str, *, session: str = DEFAULT, key: str | None = None) -> dict[str, Any]:
        """Prompt it, and get `{"result": {text, usage, model, metadata}}`; `interrupts` when a person is needed.

        :raises SessionBusy: another prompt is under way in this session
        :raises AgentNotFound, Forbidden, AgentFailed, AbortError: there is no result
        """
        return await self._client.wait(self._path, {"message": message, "session": session}, key)

    async def stream(
        self, message: str, *, session: str = DEFAULT, key: str | None = None
    ) -> AsyncGenerator[InstanceEvent, None]:
        """Prompt it, and watch; a connection that breaks is made again, and nothing is told twice.

        :raises SessionBusy: another prompt is under way in this session
        :raises ServerUnreachable: the server stays away
        """
        headers = {**STREAM, "Idempotency-Key": key or str(uuid.uuid4())}
        body = {"message": message, "session": session}
        failed = 0
        while True:
            try:
                answer = await self._client.posted(self._path, headers, body)
                async with aclosing(answer):
                    parser = Parser()
                    async for chunk in answer.chunks():
                        for event in parser.feed(chunk):
                            headers["Last-Event-ID"], failed = event.id, 0
                            yield InstanceEvent(event.type, json.loads(event.data))
                            if event.type in LAST:
                                return
            except (httpx.TransportError, ServerUnreachable) as error:
                if failed == len(RETRY) or "Last-Event-ID" not in headers:
                    raise ServerUnreachable(f"the stream of {self.agent} broke: {error}") from error
            await asyncio.sleep(RETRY[min(failed, len(RETRY) - 1)])
            failed += 1

    async def dispatch(self, input: Any, *, session: str = DEFAULT, key: str | None = None) -> dict[str, Any]:
        """Give it input to work on in its turn; durable when this returns `{status, dispatch_id, accepted_at}`.

        :raises IdempotencyMismatch: the key was used with other input
        """
        return await self._client.post(f"{self._path}/dispatch", {"input": input, "session": session}, key=key)

    async def dispatched(self, dispatch_id: str) -> dict[str, Any]:
        """What has become of a dispatch: `status`, and `text` or `error` once it has ended.

        :raises DispatchNotFound: there is none
        """
        return await self._client.get(f"/dispatches/{quote(dispatch_id, safe='')}")
