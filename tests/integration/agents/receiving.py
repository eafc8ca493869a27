"""A receiver of webhooks on loopback: it checks signatures, and answers as a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flux.webhooks import verify
from tests.integration.server.serving import listening


class Receiver:
    """`answers` are the statuses to come, then 204, given when the `gate` is open; `came` is what came, with its id."""

    def __init__(self) -> None:
        self.url = ""
        self.secret = ""
        self.answers: list[int] = []
        self.came: list[tuple[str, dict[str, Any]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._changed = asyncio.Event()

    @property
    def types(self) -> list[str]:
        """What was told, in order."""
        return [body["type"] for _, body in self.came]

    async def until(self, count: int) -> list[tuple[str, dict[str, Any]]]:
        """Wait until so many requests have come."""
        async with asyncio.timeout(20):
            while len(self.came) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.came

    async def hear(self, request: Request) -> Response:
        """One delivery."""
        body = await request.body()
        if self.secret:
            verify(self.secret, request.headers, body)
        assert request.headers["content-type"] == "application/json"
        self.came.append((request.headers["webhook-id"], msgspec.json.decode(body)))
        self._changed.set()
        await self.gate.wait()
        status = self.answers.pop(0) if self.answers else 204
        return Response(status_code=status, headers={"location": f"{self.url}/elsewhere"} if status == 302 else {})


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that listens."""
    receiver = Receiver()
    async with listening(Starlette(routes=[Route("/hook", receiver.hear, methods=["POST"])])) as url:
        receiver.url = f"{url}/hook"
        yield receiver
