"""Long-lived work goes on: what breaks in it is told in the log of the process, and tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
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


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work that is finished also when the caller is cancelled meanwhile. It must end soon by itself."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise
