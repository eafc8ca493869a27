"""Agents in workflows whose database or driver goes away, and who comes after them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, task, workflow
from flux.errors import DatabaseUnavailable
from flux.events import Cancelled, CancelRequested, ChatResponse, UserSaid
from flux.models.scripted import Call, Reply, ScriptedModel
from flux.store import ownership
from flux.store.database import LOCAL, Database
from flux.tasks.ai import agent
from tests.integration.workflows.machine import working
from tests.integration.workflows.test_agents import Lab
from tests.integration.workflows.test_agents_waiting import Held, asking, bossy, chief, lab, wipe

__all__ = ["lab"]


@workflow.with_options(namespace="agents_waiting")
async def breaking(ctx: ExecutionContext[Any]) -> Any:
    """An agent at work."""
    helper = await agent("Help.", model="test/main", name="helper", tools=[wipe])
    return await helper("go")


@pytest.mark.behaviour("inline:wait:database-away")
async def test_a_database_that_is_away_for_a_moment_is_no_failure_of_the_agent(lab: Lab) -> None:
    lab.models["main"] = model = Held(Reply("fine"))
    id = await lab.machine.start(breaking)
    await asyncio.wait_for(model.begun.wait(), 20)
    database = lab.machine.database
    broken = asyncio.Event()

    def once(read: Callable[[Any], Awaitable[Any]]) -> Any:
        async def reading(program: Any) -> Any:
            if not broken.is_set() and program.gi_frame.f_locals.get("id") != id:
                broken.set()
                program.close()
                raise DatabaseUnavailable("it does not answer")
            return await read(program)

        return reading

    database.read, database.single = once(database.read), once(database.single)  # type: ignore[method-assign]
    lab.machine.runner.changed(id)
    await asyncio.wait_for(broken.wait(), 20)
    context = await lab.machine.until(id, "ended")
    assert context.output == "fine"
    (child,) = await lab.children(id)
    log = [stored.entry for stored in await lab.machine.entries(child)]
    assert len([entry for entry in log if isinstance(entry, UserSaid)]) == 1


@pytest.mark.behaviour("inline:wait:run-failed")
async def test_an_agent_goes_on_where_it_was_when_the_run_of_its_workflow_failed(lab: Lab) -> None:
    lab.models["main"] = model = Held(Reply("fine"))
    id = await lab.machine.start(breaking)
    await asyncio.wait_for(model.begun.wait(), 20)
    database = lab.machine.database
    read = database.read
    broken = asyncio.Event()

    async def reading(program: Any) -> Any:
        if not broken.is_set() and program.gi_frame.f_locals.get("id") == id:  # the workflow's, not the agent's
            broken.set()
            program.close()
            raise OSError("the disk is odd")
        return await read(program)

    database.read = reading  # type: ignore[method-assign,assignment]
    lab.machine.runner.changed(id)
    await asyncio.wait_for(broken.wait(), 20)
    context = await lab.machine.until(id, "ended")
    assert context.error is None
    assert context.output == "fine"
    (child,) = await lab.children(id)
    log = [stored.entry for stored in await lab.machine.entries(child)]
    assert not [entry for entry in log if isinstance(entry, Cancelled | CancelRequested)]
    assert len([entry for entry in log if isinstance(entry, UserSaid)]) == 1


@pytest.mark.behaviour("inline:wait:drained")
@pytest.mark.parametrize("within", [False, True])
async def test_a_process_that_leaves_hands_over_and_fails_nothing(
    database: Database, tmp_path: Path, within: bool
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    class Slow(ScriptedModel):
        async def stream(self, request: Any) -> Any:
            begun.set()
            await go.wait()
            async for delta in super().stream(request):
                yield delta

    def script(lab: Lab, model: ScriptedModel) -> None:
        if within:
            lab.script("main", Reply("", calls=(Call("consult", {"about": "x"}),)), Reply("fine"))
        lab.models["expert" if within else "main"] = model

    async with working(database) as machine:
        lab = Lab(machine, tmp_path)
        script(lab, Slow([Reply("", calls=(Call("nothing", {}),)), Reply("never")]))
        id = await machine.start(asking)
        await asyncio.wait_for(begun.wait(), 20)
        drain = machine.runner.drain

        def leave() -> None:
            drain()
            go.set()

        machine.runner.drain = leave  # type: ignore[method-assign]
    row = await machine.row(id)
    assert (row.state, row.failures, row.last_error) == ("scheduled", 0, None)
    async with working(database) as machine:
        lab = Lab(machine, tmp_path)
        script(lab, ScriptedModel([Reply("", calls=(Call("nothing", {}),)), Reply("fine")]))
        context = await machine.until(id, "ended")
        assert context.output == "fine"


@pytest.mark.behaviour("inline:wait:taken-over")
async def test_a_driver_that_was_taken_for_dead_says_nothing_more_in_its_children(
    database: Database, other_database: Database, tmp_path: Path
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    grave = ScriptedModel([Reply("from the grave")])

    class Frozen(ScriptedModel):
        async def stream(self, request: Any) -> Any:
            if begun.is_set():  # the process that was taken for dead may be the one that takes over
                async for delta in super().stream(request):
                    yield delta
                return
            begun.set()
            await go.wait()
            async for delta in grave.stream(request):
                yield delta

    async with working(database) as zombie:
        lab = Lab(zombie, tmp_path)
        bossy(lab)
        lab.models["clerk"] = Frozen([Reply("alive")])
        id = await zombie.start(chief)
        await asyncio.wait_for(begun.wait(), 20)
        owner = (await zombie.row(id)).worker or ""
        async with working(other_database) as machine:
            second = Lab(machine, tmp_path)
            bossy(second, Reply("alive"))
            assert await other_database.write(ownership.reap(owner, (0.0,))) == [id]
            machine.dispatch.nudge(id)
            context = await machine.until(id, "ended")
            assert context.output == "led"
            go.set()
            zombie.runner.changed(id)
    children = await lab.children(id)
    assert len(children) == 2
    for child in children:
        log = [stored.entry for stored in await zombie.entries(child)]
        ends = [entry for entry in log if isinstance(entry, ChatResponse | Cancelled)]
        assert [entry.content for entry in ends if isinstance(entry, ChatResponse)] in (["led"], ["alive"])
        assert len(ends) == 1


@workflow.with_options(namespace="agents_waiting")
async def reads(ctx: ExecutionContext[Any]) -> Any:
    """An agent, and then something that takes its time."""
    said = await (await agent("Say.", model="test/main", name="helper"))("go")

    @task
    async def hold() -> None:
        holding[-1].set()
        await letting[-1].wait()

    await hold()
    return said


holding: list[asyncio.Event] = []
letting: list[asyncio.Event] = []


@pytest.mark.behaviour("inline:wait:settled")
async def test_who_comes_after_an_agent_has_answered_sees_the_answer_and_not_its_pieces(lab: Lab) -> None:
    holding.append(asyncio.Event())
    letting.append(asyncio.Event())
    lab.script("main", Reply("one two three"))
    id = await lab.machine.start(reads)
    await asyncio.wait_for(holding[-1].wait(), 20)
    seen: list[str] = []
    async with asyncio.timeout(20):
        async for batch in lab.machine.feed.follow(LOCAL, id):
            seen += [frame.type for frame in batch]
            letting[-1].set()
            if (await lab.machine.row(id)).state == "ended":
                break
    assert "TASK_COMPLETED" in seen
    assert "progress" not in seen
