"""Workflows for the tests of the routes: each stops where its name says."""

from typing import Any

from tests.integration.server.serving import Served

SOURCE = '''\
import asyncio
from flux import call, pause, task, workflow
from flux.tasks import parallel, progress, sleep

@workflow
async def double(ctx):
    """Twice the input."""
    return ctx.input * 2

@workflow
async def kind(ctx):
    return type(ctx.input).__name__

@workflow
async def fails(ctx):
    raise ValueError("the card was declined")

@workflow
async def review(ctx):
    return {"answer": await pause("review", output={"draft": ctx.input})}

@workflow
async def two_pauses(ctx):
    return await parallel(pause("left", output=1), pause("right", output=2))

@workflow
async def in_turn(ctx):
    return [await pause("first"), await pause("second")]

@task.with_options(requires_approval=True)
async def transfer(amount):
    return f"sent {amount}"

@workflow
async def pays(ctx):
    return [await transfer(amount) for amount in ctx.input]

@workflow
async def sleeps(ctx):
    await sleep(3600)

@workflow
async def naps(ctx):
    await sleep(1.2)
    return "awake"

@workflow
async def parent(ctx):
    return await call("default/review", ctx.input)

@task
async def counts():
    for n in range(3):
        await progress({"n": n})

@workflow
async def tells(ctx):
    await counts()

@task
async def holds():
    await asyncio.Event().wait()

@workflow
async def hangs(ctx):
    await progress("begun")
    await holds()
'''


async def registered(served: Served) -> None:
    """Register these workflows; again, nothing changes."""
    await served.client.upload("/workflows", "flows.py", SOURCE.encode())


async def ran(served: Served, workflow: str, input: Any = None, mode: str = "sync") -> dict[str, Any]:
    """An execution of one of these workflows."""
    await registered(served)
    return await served.client.run_workflow(f"default/{workflow}", input, mode=mode)
