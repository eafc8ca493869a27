"""What the code of a workflow can ask its process for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from flux.store.database import Database, Scope


class StartChild(Protocol):
    """Starts an execution of a workflow, once per id."""

    async def __call__(self, scope: Scope, workflow: str, input: Any, *, id: str, parent: str) -> None:
        """Start it; nothing happens when the id exists.

        :raises WorkflowNotFound: there is no such workflow
        """
        ...


T = TypeVar("T")


class Kept:
    """What is made once in a process, when it is first needed, and closed with it."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._making = asyncio.Lock()
        self._stack = AsyncExitStack()

    def put(self, key: str, made: Any) -> None:
        """Keep what somebody else closes."""
        self._made[key] = made

    async def get(self, key: str, make: Callable[[AsyncExitStack], Awaitable[T]]) -> T:
        """What was kept under a key, or what `make` makes; the stack closes it with the process."""
        async with self._making:
            if key not in self._made:
                self._made[key] = await make(self._stack)
        found: T = self._made[key]
        return found

    async def close(self) -> None:
        """Close what was made."""
        await self._stack.aclose()


Lookup = Callable[[Scope, Sequence[str]], Coroutine[Any, Any, dict[str, Any]]]


class Services(Struct, frozen=True):
    """The database, how to start other workflows, how to find secrets and configs by name, and what else is kept."""

    database: Database
    start: StartChild
    cancel_children: Callable[[Scope, str], Awaitable[None]]
    secrets: Lookup
    configs: Lookup
    kept: Kept = msgspec.field(default_factory=Kept)
