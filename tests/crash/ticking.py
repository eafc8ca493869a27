"""A worker's clock as a process of its own, killed at a chosen commit: `python -m tests.crash.ticking URL`."""

from __future__ import annotations

import asyncio
import os
import sys

from flux.engine.dispatching.dispatch import EmbeddedDispatch
from flux.engine.service.executions import Found
from flux.engine.service.ticker import Starter, Ticker
from flux.errors import WorkflowNotFound
from flux.store.database import Scope
from flux.store.feed import Feed
from flux.store.opening import open_database
from flux.testing import CrashAt


async def find(scope: Scope, workflow: str, version: int | None) -> Found:
    """Every workflow is there, but one."""
    if workflow == "default/gone":
        raise WorkflowNotFound
    return Found(workflow, 1)


async def tick(url: str) -> None:
    """Fire what is due, once."""
    database = await open_database(url, synchronous="normal", observer=CrashAt.from_environment(os.environ))
    dispatch = EmbeddedDispatch(database)
    await Ticker(database, Feed(database), dispatch, Starter(dispatch, find, "/")).tick()
    await database.close()


if __name__ == "__main__":
    asyncio.run(tick(sys.argv[1]))
