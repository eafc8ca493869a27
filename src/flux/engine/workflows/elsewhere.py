"""Code that runs in a process apart: what it would ask of the engine, it asks of the process that has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from typing import Any, Protocol


class Elsewhere(Protocol):
    """The way to the engine."""

    async def ask(self, what: str, **given: Any) -> Any:
        """What the engine answers: to `pause`, `sleep`, `call`, `progress` or `config`.

        :raises ExecutionError: it refused, or that failed
        """
        ...

    async def task(self, one: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of a task, which is remembered there, and whose function runs here.

        :raises ExecutionError: it failed
        """
        ...


_elsewhere: ContextVar[Elsewhere | None] = ContextVar("flux_elsewhere", default=None)


def elsewhere() -> Elsewhere | None:
    """The way to the engine for the code that asks; None where the engine is here, or nowhere."""
    return _elsewhere.get()


def set_elsewhere(way: Elsewhere) -> Token[Elsewhere | None]:
    """Make this the way of the code of this context."""
    return _elsewhere.set(way)
