"""What a process that runs workflows does before it is killed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flux.agents.process import Process
from flux.engine.intake.answers import Decision
from flux.engine.workflows import embedded
from flux.errors import NotPaused
from flux.store import interrupts
from flux.store.database import LOCAL, Steps
from flux.store.opening import open_database
from tests.crash import opening, workflows
from tests.crash.actors import FamilyModel
from tests.crash.stage import Stage

INPUT = 1
ANSWER = {"city": "Rome"}


@asynccontextmanager
async def opened(stage: Stage) -> AsyncIterator[Process]:
    """Flux on the plan's home, with the workflows of the crash tests."""
    async with opening.opened(stage, FamilyModel(stage)) as process:
        await process.workflows.register(LOCAL, Path(workflows.__file__).read_bytes())
        yield process


async def start(stage: Stage, name: str) -> str:
    """The one execution of this workflow; starts it the first time."""
    return (await stage.process.executions.start(LOCAL, f"crash/{name}", INPUT, key=name)).id


async def until(stage: Stage, id: str, *states: str) -> None:
    """Wait until an execution's row is in one of these states, whichever process brings it there."""
    async with aclosing(stage.process.executions.follow(LOCAL, id)) as batches:
        async for _ in batches:
            if (await stage.process.executions.get(LOCAL, id)).state in states:
                return


async def help_along(stage: Stage, id: str) -> None:
    """Answer what an execution asks, until it ends."""

    async def ended() -> bool:
        row = await stage.process.executions.get(LOCAL, id)
        for asked in await stage.process.database.read(interrupts.list_open(LOCAL, id)):
            await answer(stage, id, asked.id, asked.kind)
        return row.state == "ended"

    await stage.until(ended)


async def answer(stage: Stage, id: str, interrupt: str, kind: str) -> None:
    """Answer one question, as a person outside does."""
    stage.calls.add("answered", kind=kind)
    if kind == "pause":
        await stage.process.executions.resume(LOCAL, id, ANSWER, "address", key=f"answer {id}")
    else:
        await stage.process.executions.decide(LOCAL, id, interrupt, Decision("approve"))


async def whole_workflow(stage: Stage) -> None:
    """Everything, from the start to the end."""
    async with opened(stage):
        await help_along(stage, await start(stage, "everything"))


async def agent_workflow(stage: Stage) -> None:
    """A workflow with an agent that asks, from the start to the end."""
    async with opened(stage):
        await help_along(stage, await start(stage, "with_agent"))


async def until_waiting(stage: Stage, name: str) -> None:
    """Run a workflow until it waits in the database, or has ended."""
    async with opened(stage):
        id = await start(stage, name)
        await until(stage, id, "waiting", "ended")
        stage.reach("waiting")


async def ask_workflow(stage: Stage) -> None:
    """Until the workflow waits for a person."""
    await until_waiting(stage, "asks")


async def nap_workflow(stage: Stage) -> None:
    """Until the workflow sleeps."""
    await until_waiting(stage, "naps")


async def call_workflow(stage: Stage) -> None:
    """Until the workflow waits for the one that it called."""
    await until_waiting(stage, "calls_naps")


async def work_workflow(stage: Stage) -> None:
    """A workflow that asks nobody, from the start to the end."""
    async with opened(stage):
        await until(stage, await start(stage, "unattended"), "ended")


async def answer_workflow(stage: Stage) -> None:
    """Answer the open pause, and then once more."""
    async with opened(stage):
        id = await start(stage, "asks")
        await stage.process.executions.resume(LOCAL, id, ANSWER, "address")
        try:
            await stage.process.executions.resume(LOCAL, id, {"city": "Oslo"}, "address")
        except NotPaused:
            stage.calls.add("refused")


async def rest_workflows(stage: Stage) -> None:
    """Nothing but what is there already, until all have ended."""
    async with opened(stage) as process:

        async def ended() -> bool:
            return all(row.state == "ended" for row in await process.executions.page(LOCAL))

        await stage.until(ended)


async def serve_workflows(stage: Stage) -> None:
    """What a server does to what is there: it looks around, answers what is open, and works on something else."""
    async with opened(stage) as process:
        await process.recovery.sweep()
        stage.reach("swept")
        for row in await process.executions.page(LOCAL):
            for asked in await process.database.read(interrupts.list_open(LOCAL, row.id)):
                await answer(stage, row.id, asked.id, asked.kind)
        await until(stage, await start(stage, "greets"), "ended")


async def script(stage: Stage, run: Callable[[], Awaitable[Any]]) -> None:
    """Be a script, which has no server."""
    os.environ["FLUX_HOME"] = str(stage.home / "flux")
    os.environ["FLUX_DATABASE_URL"] = database_of(stage)

    async def observed(url: str, **more: Any) -> Any:
        return await open_database(url, observer=stage.commits, **more | {"synchronous": "normal"})

    with patch.object(embedded, "open_database", observed):
        context = await run()
    stage.calls.add("came to", id=context.execution_id, state=context.state, output=context.output)


async def run_script(stage: Stage) -> None:
    """A script that runs a workflow: the first time a new one, then that again."""
    before = await first_execution(stage)
    await script(stage, lambda: workflows.unattended.run_async(INPUT, execution_id=before))


async def pause_script(stage: Stage) -> None:
    """A script whose workflow pauses; the second time it answers."""
    before = await first_execution(stage)
    await script(stage, lambda: workflows.asks.run_async(ANSWER if before else INPUT, execution_id=before))


async def first_execution(stage: Stage) -> str | None:
    """The id of the execution that an earlier script started; None when there is none."""
    begun = stage.home / "begun"
    if not begun.exists():
        begun.touch()
        return None
    database = await open_database(database_of(stage))
    try:
        return await database.read(_first())
    finally:
        await database.close()


def database_of(stage: Stage) -> str:
    """The URL of the database of a script."""
    return stage.plan.database or f"sqlite:///{stage.home / 'flux' / 'flux.db'}"


def _first() -> Steps[str | None]:
    rows = yield "select id from executions where parent is null order by created limit 1", {}
    return rows[0][0] if rows else None


FLOWS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    flow.__name__: flow
    for flow in (
        whole_workflow,
        ask_workflow,
        nap_workflow,
        call_workflow,
        work_workflow,
        answer_workflow,
        rest_workflows,
        serve_workflows,
        run_script,
        pause_script,
        agent_workflow,
    )
}
