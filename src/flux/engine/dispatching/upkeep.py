"""Long-lived work goes on: what breaks in it is told in the log of the process, and tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeVar

from flux.errors import DatabaseLocked, DatabaseUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds to wait after something broke.
PAUSE_SECONDS = 1.0


def being_cancelled() -> bool:
    """Whether somebody asked the present task to stop; a CancelledError that comes up otherwise is a fault."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def survive(problem: str, work: Awaitable[object]) -> bool:
    """Await work; False when it broke, which is told as `problem`. Only being cancelled comes out."""
    try:
        await work
    except (DatabaseLocked, DatabaseUnavailable, TimeoutError) as error:
        logger.warning("%s: %s", problem, str(error) or "no answer in time")
    except asyncio.CancelledError:
        if being_cancelled():
            raise
        logger.exception("%s: cancelled by itself", problem)
    except Exception:  # noqa: BLE001 - whatever breaks here must not end what a process lives by
        logger.exception(problem)
    else:
        return True
    return False


async def keep_up(problem: str, step: Callable[[], Awaitable[object]]) -> NoReturn:
    """Take a step again and again, after a pause where one broke."""
    while True:
        if not await survive(problem, step()):
            await asyncio.sleep(PAUSE_SECONDS)


@asynccontextmanager
async def stopped_by(event: asyncio.Event) -> AsyncIterator[None]:
    """Cancel the body once an event is set, and go on behind it. Who cancels the whole is heard as ever."""
    try:
        async with asyncio.timeout(None) as limit:
            watcher = asyncio.create_task(_expire(limit, event))
            try:
                yield
            finally:
                watcher.cancel()
    except TimeoutError:
        if not limit.expired():
            raise


async def _expire(limit: asyncio.Timeout, event: asyncio.Event) -> None:
    await event.wait()
    limit.reschedule(asyncio.get_running_loop().time())


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work that is finished also when the caller is cancelled meanwhile. It must end soon by itself."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise
