"""Agents in workflows that wait, are stopped, or lose their driver, as a table of cases."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, pause, task, workflow
from flux.engine.intake.answers import Decision
from flux.errors import ExecutionError
from flux.events import Cancelled, ChatResponse, UserSaid
from flux.messages import ToolResult, Usage
from flux.models.scripted import Call, Reply, ScriptedModel, Turn
from flux.store import interrupts
from flux.store.database import LOCAL, Database, one
from flux.store.interrupts import Interrupt
from flux.tasks import call, parallel
from flux.tasks.ai import agent
from tests.integration.workflows.machine import working
from tests.integration.workflows.test_agents import Lab

done: list[str] = []


@pytest.fixture
async def lab(database: Database, tmp_path: Path) -> AsyncIterator[Lab]:
    done.clear()
    async with working(database) as machine:
        yield Lab(machine, tmp_path)


async def questions(lab: Lab, id: str) -> list[Interrupt]:
    """The open questions of an execution and all below it."""
    return await lab.machine.database.read(interrupts.list_open(LOCAL, id))


@task.with_options(requires_approval=True)
async def wipe(disk: str) -> str:
    """Wipe a disk."""
    done.append(disk)
    return f"{disk} wiped"


@task
async def inquire(about: str) -> str:
    """Ask a colleague, who takes days."""
    return str(await pause("colleague", {"about": about}))


@workflow.with_options(namespace="agents_waiting")
async def double(ctx: ExecutionContext[Any]) -> Any:
    """Another workflow, which waits for a person."""
    return ctx.input * int(await pause("factor"))


@task
async def compute(n: int) -> int:
    """Let another workflow compute."""
    return int(await call(double, n))


@workflow.with_options(namespace="agents_waiting")
async def asking(ctx: ExecutionContext[Any]) -> Any:
    """One agent with every tool, asked once."""
    tools: list[Any] = [wipe, inquire, compute, consult]
    helper = await agent("Help.", model="test/main", name="helper", tools=tools)
    return await helper.with_options(**(ctx.input or {}))("go")


@task
async def consult(about: str) -> str:
    """Ask another agent."""
    expert = await agent("Know.", model="test/expert", name="expert", tools=[wipe])
    return str(await expert(about))


@pytest.mark.behaviour("inline:wait:cancel")
async def test_cancelling_a_workflow_whose_agent_waits_for_a_person_ends_both(lab: Lab) -> None:
    lab.script("main", Reply("", calls=(Call("wipe", {"disk": "sda"}),)), Reply("clean"))
    context = await lab.machine.run(asking)
    assert context.is_paused
    await lab.machine.admission.cancel(LOCAL, context.execution_id)
    context = await lab.machine.until(context.execution_id, "ended")
    assert context.is_cancelled
    (child,) = await lab.children(context.execution_id)
    assert (await lab.machine.row(child)).state == "ended"
    assert await questions(lab, context.execution_id) == []
    assert done == []


@workflow.with_options(namespace="agents_waiting")
async def chief(ctx: ExecutionContext[Any]) -> Any:
    """An agent that delegates to one whose tools wait."""
    clerk = await agent(
        "Do.", model="test/clerk", name="clerk", description="does it", tools=[wipe, inquire, compute, consult]
    )
    return await (await agent("Lead.", model="test/main", name="lead", agents=[clerk]))("go")


def bossy(lab: Lab, *turns: Turn) -> None:
    """A lead that delegates once, to a clerk with a script."""
    order = Call("delegate", {"agent": "clerk", "instruction": "look"})
    lab.script("main", Reply("", calls=(order,), usage=Usage(7, 7)), Reply("led"))
    lab.script("clerk", *turns)


@pytest.mark.behaviour("inline:wait:pause-below")
async def test_a_pause_inside_a_tool_two_levels_down_wakes_all_when_answered(lab: Lab) -> None:
    bossy(lab, Reply("", calls=(Call("inquire", {"about": "Oslo"}),)), Reply("told"))
    context = await lab.machine.run(chief)
    row = await lab.machine.row(context.execution_id)
    assert row.waiting_for == "pause"
    await lab.machine.resume(context.execution_id, "fine", "colleague")
    context = await lab.machine.until(context.execution_id, "ended")
    assert context.output == "led"


async def doubled(lab: Lab, id: str) -> ExecutionContext[Any]:
    """The execution at its end, after the workflow that its tool called was told by what to multiply."""
    assert (await lab.machine.until(id)).is_paused
    find = one("select id from executions where workflow = 'agents_waiting/double'")
    (other,) = await lab.machine.database.read(find)
    await lab.machine.until(other[0], "waiting")
    await lab.machine.resume(other[0], 2)
    return await lab.machine.until(id, "ended")


@pytest.mark.behaviour("inline:wait:call")
async def test_a_tool_may_call_another_workflow_and_wait_for_it(lab: Lab) -> None:
    model = lab.script("main", Reply("", calls=(Call("compute", {"n": 4}),)), Reply("told"))
    context = await doubled(lab, await lab.machine.start(asking))
    assert context.output == "told"
    result = model.requests[1].messages[-1]
    assert isinstance(result, ToolResult)
    assert result.content == "8"


@pytest.mark.behaviour("inline:wait:call")
async def test_so_may_a_tool_two_levels_down(lab: Lab) -> None:
    bossy(lab, Reply("", calls=(Call("compute", {"n": 4}),)), Reply("told"))
    context = await doubled(lab, await lab.machine.start(chief))
    assert context.output == "led"


@pytest.mark.behaviour("inline:wait:agent-in-tool")
@pytest.mark.parametrize("below", [False, True])
async def test_a_question_of_an_agent_that_a_tool_asks_wakes_all_when_answered(lab: Lab, below: bool) -> None:
    ask = Reply("", calls=(Call("consult", {"about": "disks"}),))
    lab.script("expert", Reply("", calls=(Call("wipe", {"disk": "sda"}),)), Reply("wiped"))
    if below:
        bossy(lab, ask, Reply("told"))
    else:
        lab.script("main", ask, Reply("led"))
    context = await lab.machine.run(chief if below else asking)
    assert (await lab.machine.row(context.execution_id)).waiting_for == "approval"
    (asked,) = await questions(lab, context.execution_id)
    await lab.machine.admission.answer(LOCAL, context.execution_id, asked.id, Decision("approve"))
    context = await lab.machine.until(context.execution_id, "ended")
    assert context.output == "led"
    assert done == ["sda"]


@pytest.mark.behaviour("inline:wait:early-answer")
@pytest.mark.parametrize("flow", [asking, chief])
async def test_an_answer_that_comes_as_the_agent_goes_to_rest_is_not_missed(lab: Lab, flow: Any) -> None:
    ask = Reply("", calls=(Call("wipe", {"disk": "sda"}),))
    if flow is chief:
        bossy(lab, ask, Reply("wiped"))
    else:
        lab.script("main", ask, Reply("led"))
    database = lab.machine.database
    write, started = database.write, asyncio.Event()
    answered: list[str] = []
    id = ""

    async def writing(program: Any) -> Any:
        wrote = await write(program)
        if started.is_set() and not answered:
            open_ = await questions(lab, id)
            rows = [await lab.machine.row(one.execution_id) for one in open_]
            if any(row.state == "waiting" for row in rows):
                answered.append(open_[0].id)
                await lab.machine.admission.answer(LOCAL, id, open_[0].id, Decision("approve"))
        return wrote

    database.write = writing  # type: ignore[method-assign,assignment]
    id = await lab.machine.start(flow)
    started.set()
    context = await lab.machine.until(id, "ended")
    assert context.output == "led"
    assert done == ["sda"]


class Held(ScriptedModel):
    """The first call never answers."""

    def __init__(self, *turns: Turn) -> None:
        super().__init__(list(turns))
        self.begun = asyncio.Event()
        self.calls = 0

    async def stream(self, request: Any) -> Any:
        self.calls += 1
        if self.calls == 1:
            self.begun.set()
            await asyncio.Event().wait()
        async for delta in super().stream(request):
            yield delta


@pytest.mark.behaviour("inline:wait:timeout")
async def test_an_agent_that_takes_too_long_is_stopped_and_can_be_asked_again(lab: Lab) -> None:
    lab.models["main"] = Held(Reply("fine", usage=Usage(3, 3)))
    context = await lab.machine.run(asking, {"timeout": 1.0, "retry_max_attempts": 1, "retry_delay": 0})
    assert context.output == "fine"
    (child,) = await lab.children(context.execution_id)
    log = [stored.entry for stored in await lab.machine.entries(child)]
    assert [type(entry) for entry in log if isinstance(entry, Cancelled | ChatResponse)] == [Cancelled, ChatResponse]
    assert len([entry for entry in log if isinstance(entry, UserSaid)]) == 2


@workflow.with_options(namespace="agents_waiting")
async def patient(ctx: ExecutionContext[Any]) -> Any:
    """An agent that waits too long for a person, while something else goes on."""
    clerk = await agent("Do.", model="test/clerk", name="clerk", description="does it", tools=[consult])
    helper = await agent("Help.", model="test/main", name="helper", tools=[wipe], agents=[clerk])
    late = asyncio.Event()

    @task
    async def busy() -> str:
        await late.wait()
        return "busy"

    @task
    async def asked() -> str:
        try:
            return str(await helper.with_options(timeout=1.5)("go"))
        except ExecutionError as error:
            return type(error).__name__
        finally:
            late.set()

    found = await parallel(asked(), busy())
    await pause("look")
    return found


@pytest.mark.behaviour("inline:wait:timeout-waiting")
@pytest.mark.parametrize("deep", [False, True])
async def test_an_agent_that_waits_for_a_person_beyond_its_timeout_is_stopped_too(lab: Lab, deep: bool) -> None:
    ask = Reply("", calls=(Call("wipe", {"disk": "sda"}),), usage=Usage(7, 7))
    if deep:  # a sub-agent whose tool asks an agent which waits
        bossy(lab, Reply("", calls=(Call("consult", {"about": "x"}),), usage=Usage(7, 7)), Reply("never"))
        lab.script("expert", ask, Reply("never"))
    else:
        lab.script("main", ask, Reply("never"))
    context = await lab.machine.run(patient)
    assert [one.kind for one in await questions(lab, context.execution_id)] == ["pause"]
    for child in await lab.children(context.execution_id):
        assert (await lab.machine.row(child)).run_id is None
        assert len([s for s in await lab.machine.entries(child) if isinstance(s.entry, Cancelled)]) == 1
    assert len(await lab.children(context.execution_id)) == (3 if deep else 1)
    assert (await lab.machine.row(context.execution_id)).spent.tokens == (Usage(21, 21) if deep else Usage(7, 7))
    await lab.machine.resume(context.execution_id, None, "look")
    context = await lab.machine.until(context.execution_id, "ended")
    assert context.output == ["ExecutionTimeoutError", "busy"]


@pytest.mark.behaviour("inline:wait:usage-stopped")
async def test_what_a_stopped_agent_has_used_is_counted(lab: Lab) -> None:
    class Slow(Held):
        async def stream(self, request: Any) -> Any:
            self.calls += 1
            if self.calls == 2:
                await asyncio.Event().wait()
            async for delta in ScriptedModel.stream(self, request):
                yield delta

    lab.models["main"] = Slow(
        Reply("", calls=(Call("nothing", {}),), usage=Usage(10, 1)), Reply("fine", usage=Usage(3, 3))
    )
    context = await lab.machine.run(asking, {"timeout": 1.0, "retry_max_attempts": 1, "retry_delay": 0})
    assert context.output == "fine"
    assert (await lab.machine.row(context.execution_id)).spent.tokens == Usage(13, 4)


@workflow.with_options(namespace="agents_waiting")
async def pair(ctx: ExecutionContext[Any]) -> Any:
    """Two agents at once, which both ask."""
    one_, two = [await agent("Wipe.", model=f"test/{name}", name=name, tools=[wipe]) for name in ("a", "b")]
    return await parallel(one_("x"), two("y"))


@pytest.mark.behaviour("inline:wait:both-ask")
@pytest.mark.parametrize("order", [(0, 1), (1, 0), None])
async def test_agents_side_by_side_that_both_ask_are_answered_in_any_order_or_at_once(
    lab: Lab, order: tuple[int, int] | None
) -> None:
    for name in ("a", "b"):
        lab.script(name, Reply("", calls=(Call("wipe", {"disk": name}),)), Reply(f"{name} done"))
    id = await lab.machine.start(pair)
    await lab.machine.until(id, "waiting")
    asked = await questions(lab, id)
    assert len(asked) == 2
    answers = [lab.machine.admission.answer(LOCAL, id, asked[n].id, Decision("approve")) for n in order or (0, 1)]
    if order is None:
        await asyncio.gather(*answers)
    else:
        for answer in answers:
            await answer
    context = await lab.machine.until(id, "ended")
    assert context.output == ["a done", "b done"]
    assert sorted(done) == ["a", "b"]
