"""CancelSignal: says that something is to stop, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class CancelSignal:
    """A request to stop that may be given to several operations. It is made once, and never taken back."""

    def __init__(self) -> None:
        self._cancelled = asyncio.Event()
        self._reason: Any = None
        self._then: list[Callable[[Any], None]] = []

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked to stop."""
        return self._cancelled.is_set()

    @property
    def reason(self) -> Any:
        """What they gave as the reason; None until then, or when they gave none."""
        return self._reason

    def cancel(self, reason: Any = None) -> None:
        """Ask to stop. Only the first request counts."""
        if self.cancelled:
            return
        self._reason = reason
        self._cancelled.set()
        then, self._then = self._then, []
        for call in then:
            call(reason)

    async def wait(self) -> None:
        """Return when somebody has asked to stop."""
        await self._cancelled.wait()

    def then(self, call: Callable[[Any], None]) -> Callable[[], None]:
        """Have `call` called with the reason, now if that was asked already; returns what takes this back."""
        if self.cancelled:
            call(self._reason)
            return lambda: None
        self._then.append(call)
        return lambda: self._then.remove(call) if call in self._then else None
