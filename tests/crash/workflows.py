"""The workflows of the crash tests. Their source is registered as it stands, and a script imports them."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from flux import ExecutionContext, TaskMetadata, call, pause, task, workflow
from flux.engine.workflows.flow import parallel
from flux.engine.workflows.pause import sleep
from flux.errors import ExecutionInterrupted
from flux.tasks.ai import agent
from tests.crash.stage import at_hand

BRANCHES, STEPS = 6, 5
#: A wait that is just too long to be spent in memory. Seconds.
NAP = 1.1
#: One that is sure not to be, however slow the machine is.
LONG_NAP = 2.5
UNKNOWN = "nobody knows"

#: Which branch of the workflow runs, and how far it is: what a call cannot know from its arguments.
at: ContextVar[str] = ContextVar("at")


def act(name: str, metadata: TaskMetadata) -> None:
    """Leave an effect on disk, between two points."""
    stage = at_hand()
    stage.reach(f"before {name}")
    stage.effects.add(name, call=metadata.task_id)
    stage.reach(f"after {name}")


@task.with_options(metadata=True)
async def look(x: int, *, metadata: TaskMetadata) -> int:
    """Harmless."""
    act("look", metadata)
    return x + 1


@task.with_options(metadata=True)
async def step(x: int, *, metadata: TaskMetadata) -> str:
    """Called with the same argument in all branches."""
    act("step", metadata)
    return at.get()


@task.with_options(metadata=True, retry_max_attempts=2, retry_delay=0.001)
async def shaky(*, metadata: TaskMetadata) -> str:
    """Fails the first time it is ever tried."""
    act("shaky", metadata)
    if at_hand().effects.count("shaky") == 1:
        raise ValueError("not yet")
    return "steady"


@task.with_options(metadata=True, effect="once")
async def pay(x: int, *, metadata: TaskMetadata) -> str:
    """Must never happen twice."""
    act("pay", metadata)
    return f"paid {x}"


@task.with_options(metadata=True, requires_approval=True)
async def wipe(x: str, *, metadata: TaskMetadata) -> str:
    """Somebody must agree."""
    act("wipe", metadata)
    return f"wiped {x}"


@task.with_options(metadata=True)
async def double(x: int, *, metadata: TaskMetadata) -> int:
    """What the other workflow does."""
    act("double", metadata)
    return x * 2


async def branch(n: int) -> list[str]:
    """Several steps, one after the other."""
    found = []
    for k in range(STEPS):
        at.set(f"{n}.{k}")
        found.append(await step(0))
    return found


async def pay_once() -> str:
    """Pay, and live with not knowing whether it happened."""
    try:
        return str(await pay(4))
    except ExecutionInterrupted:
        return UNKNOWN


@workflow.with_options(namespace="crash")
async def doubles(ctx: ExecutionContext[int]) -> int:
    """Called by another workflow."""
    return int(await double(ctx.input))


@workflow.with_options(namespace="crash")
async def everything(ctx: ExecutionContext[int]) -> dict[str, Any]:
    """All that a workflow can do, one after the other."""
    done: dict[str, Any] = {"looked": [await look(ctx.input), await look(ctx.input + 1)]}
    done["branches"] = await parallel(*(branch(n) for n in range(BRANCHES)))
    done["shaky"] = await shaky()
    done["paid"] = await pay_once()
    _, done["doubled"] = await parallel(sleep(NAP), call("crash/doubles", 21))
    done["answer"] = await pause("address", output="where?")
    done["wiped"] = await wipe("disk")
    return done


@workflow.with_options(namespace="crash")
async def unattended(ctx: ExecutionContext[int]) -> dict[str, Any]:
    """What a script runs to its end by itself."""
    done: dict[str, Any] = {"looked": [await look(ctx.input), await look(ctx.input + 1)]}
    done["branches"] = await parallel(*(branch(n) for n in range(2)))
    done["shaky"] = await shaky()
    done["paid"] = await pay_once()
    done["doubled"] = await call("crash/doubles", 21)
    return done


@workflow.with_options(namespace="crash")
async def asks(ctx: ExecutionContext[int]) -> dict[str, Any]:
    """Waits for a person between two tasks."""
    return {"looked": [await look(ctx.input), await pause("address"), await look(ctx.input + 1)]}


@task.with_options(metadata=True)
async def greet(*, metadata: TaskMetadata) -> str:
    """Something else to do."""
    act("greet", metadata)
    return "hello"


@workflow.with_options(namespace="crash")
async def greets(ctx: ExecutionContext[int]) -> str:
    """Has nothing to do with the others."""
    return str(await greet())


@workflow.with_options(namespace="crash")
async def calls_naps(ctx: ExecutionContext[int]) -> Any:
    """Waits for a workflow that sleeps."""
    return await call("crash/naps", ctx.input)


@workflow.with_options(namespace="crash")
async def naps(ctx: ExecutionContext[int]) -> dict[str, Any]:
    """Sleeps between two tasks."""
    first = await look(ctx.input)
    await sleep(LONG_NAP)
    return {"looked": [first, await look(ctx.input + 1)]}


@workflow.with_options(namespace="crash")
async def with_agent(ctx: ExecutionContext[int]) -> dict[str, Any]:
    """An agent with tasks for tools between two tasks."""
    tools: list[Any] = [look.with_options(effect="read"), pay, wipe]
    helper = await agent("Help.", model="crash/family", name="helper", tools=tools)
    return {"looked": [await look(ctx.input)], "said": await helper("go"), "then": await look(ctx.input + 1)}
