"""An event loop in a thread of its own, for callers that do not run one, or whose own must not be used."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads. It ends with the process, or by `close`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flux-client", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine; whoever stops waiting (Ctrl+C) stops the work.

        :raises RuntimeError: this thread was closed
        """
        if self._loop.is_closed():
            work.close()
            raise RuntimeError("this client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def each(self, source: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """The items of an asynchronous generator, which is closed with this one."""
        steps = _Steps(source)
        try:
            while (item := self.run(steps.next())) is not None:
                yield item[0]
        finally:
            if not self._loop.is_closed():
                self.run(steps.aclose())

    def close(self) -> None:
        """Stop what still runs, and end the thread."""
        if self._loop.is_closed():
            return
        self.run(_end_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Steps(Generic[T]):
    """One asynchronous generator, moved by one at a time: a step that was given up ends before it is closed."""

    def __init__(self, source: AsyncGenerator[T, None]) -> None:
        self._source = source
        self._turn = asyncio.Lock()

    async def next(self) -> tuple[T] | None:
        """The next item, None at the end."""
        async with self._turn:
            async for item in self._source:
                return (item,)
            return None

    async def aclose(self) -> None:
        async with self._turn:
            await self._source.aclose()


async def _end_others() -> None:
    loop = asyncio.get_running_loop()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await loop.shutdown_asyncgens()
