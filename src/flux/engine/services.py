"""What the code of a workflow can ask its process for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

from msgspec import Struct

from flux.store.database import Database, Scope


class StartChild(Protocol):
    """Starts an execution of a workflow, once per id."""

    async def __call__(self, scope: Scope, workflow: str, input: Any, *, id: str, parent: str) -> None:
        """Start it; nothing happens when the id exists.

        :raises WorkflowNotFound: there is no such workflow
        """
        ...


Lookup = Callable[[Scope, Sequence[str]], Coroutine[Any, Any, dict[str, Any]]]


class Services(Struct, frozen=True):
    """The database, how to start other workflows, and how to find secrets and configs by name."""

    database: Database
    start: StartChild
    cancel_children: Callable[[Scope, str], Awaitable[None]]
    secrets: Lookup
    configs: Lookup
