"""What `GET /metrics` tells: this process's counters, and what the database holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

import flux
from flux.errors import Unavailable
from flux.metrics import COUNTERS, HTTP_REQUESTS, Family, Labels
from flux.store import retention, workers
from flux.store.database import Database

#: Counting walks over every row: the numbers are this old at most. Seconds.
FRESH_SECONDS = 15.0
#: Seconds that the database gets to answer.
ANSWER_SECONDS = 5.0
#: Methods with a label of their own.
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class Counts:
    """Numbers of the database; who was seen within `dead_after` seconds is alive."""

    def __init__(self, database: Database, dead_after: float) -> None:
        self._database = database
        self._dead_after = dead_after
        self._at = float("-inf")
        self._found: list[Family] = []
        self._lock = asyncio.Lock()

    async def families(self) -> list[Family]:
        """Every metric of this process, and of the database where that answers."""
        async with self._lock:
            if time.monotonic() - self._at > FRESH_SECONDS:
                self._found = await self._count()
                self._at = time.monotonic()
        info = _gauge("flux_info", "The version of Flux.", {(flux.__version__,): 1}, "version")
        return [info, *self._found, *(counter.family() for counter in COUNTERS)]

    async def _count(self) -> list[Family]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                rows = await self._database.scan(retention.counted())
                alive = await self._database.read(workers.alive(self._dead_after))
        except (Unavailable, TimeoutError):
            return [_up(0)]
        return [
            _up(1),
            _gauge("flux_executions", "Executions by kind and state.", dict(rows), "kind", "state"),
            _gauge("flux_workers_alive", "Workers seen lately; an embedded one only while it runs.", {(): alive}),
        ]


class RequestCounter:
    """ASGI middleware in front of everything: counts each answer by the pattern of its route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and count when the answer begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in METHODS else "other"
                route = getattr(scope.get("route"), "path", "other")
                HTTP_REQUESTS.add(method, route, str(message["status"]))
            await send(message)

        await self._app(scope, receive, counted)


def _up(value: int) -> Family:
    return _gauge("flux_database_up", "Whether the database answers.", {(): value})


def _gauge(name: str, help: str, samples: Mapping[Labels, float], *labels: str) -> Family:
    return Family(name, "gauge", help, labels, samples)
