"""What the MCP connections of a process share: who they say that we are, and where they keep a person's secrets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

import flux


class Vault(Protocol):
    """The secrets of one person."""

    async def read(self, name: str) -> str:
        """A secret that was set by name. SecretNotFound: there is none."""

    async def load(self, name: str) -> str | None:
        """What was kept under a name of our own, None when nothing was."""

    async def save(self, name: str, value: str) -> None:
        """Keep something, readable by nobody else."""

    async def forget(self, name: str) -> None:
        """Keep it no longer."""

    async def state(self, session: str, nonce: str) -> str:
        """What a login carries through the browser, so that any process knows whose it is."""


class Introduction(Struct, frozen=True):
    """How connections are made, and who they say that we are. `http` is an httpx2.AsyncClient to send requests with.

    `transport` None: found out with the server.
    """

    name: str = "flux"
    version: str = flux.__version__
    http: Any = None
    transport: Literal["streamable-http", "sse"] | None = None


class Surroundings(Protocol):
    """What a connection needs of the pool that it is part of; see McpPool."""

    us: Introduction
    hosts: Sequence[str]
    environment: dict[str, str]
    cwd: str
    callback: str
    document: str | None
    idle: float
    on_login: Callable[[], Awaitable[None]] | None
