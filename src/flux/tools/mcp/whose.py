"""Whose question it is: over some transports a server's question does not say which call it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

#: Answers what a server asks during a call.
Elicit = Callable[[Any], Awaitable[Any]]

#: Seconds to wait for other calls to end, so that only one is left that may have asked.
PATIENCE = 5.0

#: The call made in this context. Over Streamable HTTP a question comes in the context of its call.
_calling: ContextVar[Elicit | None] = ContextVar("calling", default=None)


class Calls:
    """The calls in flight on one connection, and which of them a question is from."""

    def __init__(self) -> None:
        self._running: list[Elicit] = []
        self._asking: list[Elicit] = []
        self._unclear = 0
        self._clear = asyncio.Event()
        self._clear.set()
        self._changed = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._running)

    @asynccontextmanager
    async def running(self, elicit: Elicit) -> AsyncIterator[None]:
        """A call that is made while the context is open; it begins when no question is unclear."""
        await self._clear.wait()
        token = _calling.set(elicit)
        self._running.append(elicit)
        try:
            yield
        finally:
            self._running.remove(elicit)
            _calling.reset(token)
            self._changed.set()

    async def answer(self, params: Any) -> Any:
        """The answer of the call that a question is from; None when there is no such call."""
        elicit = _calling.get()
        if elicit not in self._running:
            elicit = await self._whose()
        if elicit is None:
            return None
        self._asking.append(elicit)
        try:
            return await elicit(params)
        finally:
            self._asking.remove(elicit)

    async def _whose(self) -> Elicit | None:
        """The one call that may have asked: others are waited for, and new ones are held back meanwhile."""
        self._unclear += 1
        self._clear.clear()
        self._changed.set()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    while len(self._candidates()) > self._unclear:
                        self._changed.clear()
                        await self._changed.wait()
            return next(iter(self._candidates()), None)
        finally:
            self._unclear -= 1
            if not self._unclear:
                self._clear.set()

    def _candidates(self) -> list[Elicit]:
        return [elicit for elicit in self._running if elicit not in self._asking]
