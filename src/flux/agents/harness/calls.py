"""CallHandle: an operation that is under way, to be awaited or aborted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from flux.agents.code.errors import AbortError
from flux.engine.dispatching.upkeep import being_cancelled
from flux.errors import FluxError
from flux.tools.cancel import CancelSignal

T = TypeVar("T")

#: Does an operation; is told by the signal to stop.
Operation = Callable[[CancelSignal], Coroutine[Any, Any, T]]


class CallHandle(Awaitable[T], Generic[T]):
    """An operation. It began when it was asked for; awaiting it gives what it comes to."""

    def __init__(self, operation: Operation[T], outer: CancelSignal | None = None) -> None:
        self.signal = CancelSignal()
        self._task = asyncio.create_task(self._run(operation), name="flux operation")
        self._forget = outer.then(self.abort) if outer is not None else lambda: None
        self._task.add_done_callback(self._ended)

    def abort(self, reason: Any = None) -> None:
        """Stop it: awaiting it raises AbortError, once what it began has stopped. When it is over, nothing happens."""
        if not self._task.done():
            self.signal.cancel(reason)

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self._task.done()

    def then(self, callback: Callable[[], object]) -> None:
        """Call this when it is over."""
        self._task.add_done_callback(lambda _: callback())

    async def ended(self) -> None:
        """Return when it is over, however that was."""
        await asyncio.wait((self._task,))

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait().__await__()

    async def _run(self, operation: Operation[T]) -> T:
        if self.signal.cancelled:
            raise AbortError(self.signal.reason)
        try:
            result = await operation(self.signal)
        except FluxError:
            if not self.signal.cancelled:
                raise
        if self.signal.cancelled:
            raise AbortError(self.signal.reason)
        return result

    async def _wait(self) -> T:
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if being_cancelled() and not self._task.done():
                # Who waited does so no more: then the operation is not wanted either. It leaves things in good order.
                self.abort("the task that awaited it was cancelled")
                await asyncio.wait((self._task,))
            raise

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._forget()
        if not task.cancelled():
            task.exception()  # who awaits it hears of it


async def until(work: Awaitable[T], signal: CancelSignal) -> T:
    """What work comes to, which the signal stops.

    :raises AbortError: it did
    """
    running = asyncio.ensure_future(work)

    def stop(_: Any) -> None:
        running.cancel()

    forget = signal.then(stop)
    try:
        return await running
    except asyncio.CancelledError:
        if signal.cancelled:
            raise AbortError(signal.reason) from None
        raise
    finally:
        forget()
