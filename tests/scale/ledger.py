"""A workflow that leaves on disk what it did. Its source is registered as it stands."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from flux import ExecutionContext, TaskMetadata, task, workflow
from flux.errors import ExecutionInterrupted
from flux.testing import EffectCounter

#: Seconds that each task takes.
TAKES = 0.05
UNKNOWN = "nobody knows"


@task.with_options(metadata=True)
async def step(file: str, n: int, *, metadata: TaskMetadata) -> int:
    """May happen again when its worker is lost in the middle of it."""
    EffectCounter(Path(file)).add("step", n=n, call=metadata.task_id)
    await asyncio.sleep(TAKES)
    return n


@task.with_options(metadata=True, effect="once")
async def settle(file: str, n: int, *, metadata: TaskMetadata) -> int:
    """Must never happen twice."""
    await asyncio.sleep(TAKES)
    EffectCounter(Path(file)).add("settle", n=n, call=metadata.task_id)
    return n


@workflow
async def ledger(ctx: ExecutionContext[dict[str, Any]]) -> list[Any]:
    """Steps and settlements, one after the other."""
    file = ctx.input["file"]
    done: list[Any] = []
    for n in range(ctx.input["steps"]):
        done.append(await step(file, n))
        try:
            done.append(await settle(file, n))
        except ExecutionInterrupted:
            done.append(UNKNOWN)
    return done
