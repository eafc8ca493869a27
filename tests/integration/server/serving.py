"""A Flux server to test against: its process, its application on a socket or in memory, and its models."""

import asyncio
import itertools
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from flux.agents.process import Process, open_process
from flux.agents.project.discovery import Project
from flux.client import FluxClient
from flux.client.transport import InProcessTransport
from flux.models.base import Model
from flux.server.app import create_app
from flux.settings import Settings, load_settings
from flux.tools.base import Tool

ASGI = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]
IN_PROCESS_URL = "http://localhost"


class Exchanges:
    """An ASGI application in front of another: knows how many requests are being answered."""

    def __init__(self, app: ASGI) -> None:
        self.open = 0
        self._app = app
        self._changed = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._count(1)
        try:
            await self._app(scope, receive, send)
        finally:
            self._count(-1)

    async def until(self, count: int) -> None:
        """Return when so many requests are open."""
        async with asyncio.timeout(20):
            while self.open != count:
                await self._changed.wait()

    def _count(self, change: int) -> None:
        self.open += change
        self._changed.set()
        self._changed = asyncio.Event()


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def listening(app: ASGI, port: int = 0) -> AsyncIterator[str]:
    """The application on a loopback port, a free one unless told; the URL. Streams are cut at the end."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=0,
        ws="websockets-sansio",
        ws_max_size=10_000,
    )
    server = _Uvicorn(config)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        task = asyncio.create_task(server.serve([listener]))
        await server.ready.wait()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@dataclass
class Served:
    """A running server and what tests do with it."""

    process: Process
    app: FastAPI
    exchanges: Exchanges
    url: str
    in_process: bool
    models: dict[str, Model]
    client: FluxClient = field(init=False)
    http: httpx.AsyncClient = field(init=False)
    _names: "itertools.count[int]" = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.client = self.new_client()
        self.http = httpx.AsyncClient(base_url=self.url, transport=self.transport(), trust_env=False)

    def transport(self) -> httpx.AsyncBaseTransport:
        """A new way to this server."""
        return InProcessTransport(self.exchanges) if self.in_process else httpx.AsyncHTTPTransport(limits=UNLIMITED)

    def new_client(self, token: str | None = None) -> FluxClient:
        """One more client of this server."""
        return FluxClient(self.url, token, transport=self.transport() if self.in_process else None)

    async def agent(self, model: Model, **fields: Any) -> str:
        """A new agent that talks to `model`; its name."""
        name = f"agent{next(self._names)}"
        self.models[name] = model
        await self.client.post("/agents", {"name": name, "model": f"test/{name}", **fields})
        return name

    async def aclose(self) -> None:
        """Close the clients."""
        await self.client.aclose()
        await self.http.aclose()


UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=20)


def settings_of(home: Path, database_url: str = "") -> Settings:
    """Settings for a quick life and death, with tools that ask first on any machine."""
    return load_settings(
        {}, cwd=home, home=str(home), grace=0.0, synchronous="normal", database_url=database_url or None,
        sandbox="local",
    )  # fmt: skip


@asynccontextmanager
async def serving(
    home: Path, *, in_process: bool, port: int = 0, database_url: str = "", worker: bool = True,
    tools: Mapping[str, Tool] | None = None, change: Callable[[Settings], Settings] = lambda settings: settings,
    project: Project | None = None, **models: Model,
) -> AsyncIterator[Served]:  # fmt: skip
    """A server on `home`, and its database unless told; the workspace of its agents is there too."""
    known: dict[str, Model] = dict(models)
    workspace = home / "workspace"
    workspace.mkdir(parents=True, exist_ok=True)
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    async with open_process(
        change(settings_of(home, database_url)),
        environment=environment,
        workspace=workspace,
        factories={"test": known.__getitem__},
        tools=tools,
        worker=worker,
        project=project,
    ) as process:
        app = create_app(process)
        exchanges = Exchanges(app)
        if in_process:
            served = Served(process, app, exchanges, IN_PROCESS_URL, True, known)
            yield served
            await served.aclose()
            return
        async with listening(exchanges, port) as url:
            served = Served(process, app, exchanges, url, False, known)
            yield served
            await served.aclose()
