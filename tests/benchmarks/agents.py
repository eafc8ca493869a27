"""Agents in workflows: what `agent()` adds to a model call, and reading tools that run at the same time."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from flux.agents.process import Process, open_process
from flux.messages import TextPart, UserMessage
from flux.models.base import ModelRequest
from flux.models.scripted import Call, Reply, ScriptedModel
from flux.settings import load_settings
from flux.store.database import LOCAL
from flux.store.feed import START
from tests.benchmarks.frame import Row, Size, median, ms, spent

SOURCE = b'''
import asyncio

from flux import pause, task, workflow
from flux.tasks.ai import agent


@task.with_options(effect="read")
async def look(n: int) -> str:
    """Take a while to look."""
    await asyncio.sleep(NAP)
    return "seen"


@workflow
async def asked(ctx):
    helper = await agent("Help.", model="bench/echo", name="helper")
    for n in range(ctx.input):
        await helper(f"number {n}")


@workflow
async def looks(ctx):
    helper = await agent("Look.", model="bench/looker", name="looker", tools=[look], max_concurrent_tools=20)
    return await helper("go")
'''
#: Seconds that one look takes, and how many are asked for at once.
NAP, LOOKS = 0.1, 20
DIRECT = "the model called directly"


async def measure(size: Size, home: Path) -> list[Row]:
    """In process, on SQLite."""
    echo = ScriptedModel(lambda request: Reply("hello to you"), remember=1)
    looks = tuple(Call("look", {"n": n}) for n in range(LOOKS))
    models = {"echo": echo, "looker": ScriptedModel([Reply("", calls=looks), Reply("done")])}
    settings = load_settings({}, cwd=home, home=str(home))
    async with open_process(
        settings, environment=os.environ, workspace=home, factories={"bench": lambda name: models[name]}
    ) as process:
        await process.workflows.register(LOCAL, SOURCE.replace(b"NAP", str(NAP).encode()))
        await _run(process, "asked", size.warm_up)
        direct = [await _direct(echo) for _ in range(size.turns)]
        _, taken = await spent(_run(process, "asked", size.turns))
        began = time.perf_counter()
        await _run(process, "looks", None)
        together = time.perf_counter() - began
    return [
        Row(
            name="agent(): per model call", figure=ms(taken.wall / size.turns), unit="ms", limit=ms(median(direct)),
            limit_is=DIRECT, target=5, over=True,
        ),
        Row(name="agent(): CPU per model call", figure=ms(taken.cpu / size.turns), unit="ms"),
        Row(
            name=f"{LOOKS} reading tools of {ms(NAP):.0f} ms at once", figure=ms(together), unit="ms",
            limit=ms(NAP), limit_is="one of them", target=ms(NAP * 2),
        ),
    ]  # fmt: skip


async def _run(process: Process, name: str, input: Any) -> None:
    id = (await process.executions.start(LOCAL, f"default/{name}", input)).id
    async with asyncio.timeout(60):
        async for batch in process.executions.follow(LOCAL, id, START):
            if any(frame.type in ("WORKFLOW_COMPLETED", "WORKFLOW_FAILED") for frame in batch):
                return


async def _direct(model: ScriptedModel) -> float:
    request = ModelRequest("Help.", (UserMessage((TextPart("number 1"),)),))
    began = time.perf_counter()
    async for _ in model.stream(request):
        pass
    return time.perf_counter() - began
