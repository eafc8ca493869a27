"""Code inside a tool call of an agent: what it waits for, asks, fails by and is remembered by, as a table of cases."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, pause, task, workflow
from flux.engine.intake.answers import Decision
from flux.entries.workflows import TaskStarted
from flux.errors import ExecutionError
from flux.events import Entry, ToolDone
from flux.models.scripted import Call, Reply
from flux.store import interrupts
from flux.store.database import LOCAL, Database
from flux.tasks import call, parallel, sleep
from flux.tasks.ai import agent
from tests.integration.workflows.machine import working
from tests.integration.workflows.test_agents import Lab

done: list[str] = []
acting: list[asyncio.Event] = []
LONG = "x" * 3_000_000


@pytest.fixture
async def lab(database: Database, tmp_path: Path) -> AsyncIterator[Lab]:
    done.clear()
    acting.append(asyncio.Event())
    async with working(database) as machine:
        yield Lab(machine, tmp_path)


@task
async def step(name: str) -> str:
    """One step."""
    done.append(name)
    return f"did {name}"


@task.with_options(requires_approval=True, effect="once")
async def danger(name: str) -> str:
    """A dangerous step."""
    done.append(name)
    return f"did {name}"


@task
async def mixture(name: str) -> str:
    """Much at once."""

    async def long() -> str:
        await sleep(1.2)
        return str(await step("slept"))

    found = await parallel(step("a"), step("a"), long(), danger("b"), pause("colleague"))
    return ", ".join(map(str, found))


@task
async def failing(name: str) -> str:
    """Fail after a step."""
    await step(name)
    raise ValueError("it is broken")


@task
async def caught(name: str) -> str:
    """Catch what an inner task raises."""
    try:
        await failing(name)
    except ExecutionError as error:
        return f"caught {error}"
    return "nothing"


@task
async def wordy(name: str) -> str:
    """Say very much."""
    return LONG


@task
async def patient(name: str) -> str:
    """Wait a while for a colleague, then go on without."""
    answer = await pause("colleague", after=1.2)
    await sleep(1.2)
    return f"heard {answer}"


@workflow.with_options(namespace="nested")
async def inner(ctx: ExecutionContext[Any]) -> Any:
    """Another workflow, which fails."""
    raise ValueError("not today")


@task
async def calling(name: str) -> str:
    """Call another workflow."""
    return str(await call(inner, name))


TOOLS: tuple[Any, ...] = (step, mixture, failing, caught, wordy, patient, calling)


@workflow.with_options(namespace="nested")
async def nests(ctx: ExecutionContext[Any]) -> Any:
    """An agent with all of these."""
    return await (await agent("Help.", model="test/main", name="helper", tools=TOOLS))("go")


async def results(lab: Lab, id: str) -> list[ToolDone]:
    """What the calls of the agent came to."""
    (child,) = await lab.children(id)
    return [s.entry for s in await lab.machine.entries(child) if isinstance(s.entry, ToolDone)]


@pytest.mark.behaviour("nested:mixture")
async def test_pauses_sleeps_approvals_and_branches_work_side_by_side_inside_a_tool(lab: Lab) -> None:
    lab.script("main", Reply("", calls=(Call("mixture", {"name": "m"}),)), Reply("ok"))
    id = await lab.machine.start(nests)
    while (await lab.machine.until(id)).is_paused:
        open_ = await lab.machine.database.read(interrupts.list_open(LOCAL, id))
        for one in open_:
            word = "approve" if one.kind == "approval" else "answer"
            await lab.machine.admission.answer(LOCAL, id, one.id, Decision(word, content="fine"))
        await lab.machine.until(id, "running", "ended", "scheduled")
    (result,) = await results(lab, id)
    assert result.content == "did a, did a, did slept, did b, fine"
    assert sorted(done) == ["a", "a", "b", "slept"]


@pytest.mark.behaviour("nested:exceptions")
@pytest.mark.parametrize(
    ("tool", "outcome", "content"),
    [
        ("failing", "error", "it is broken"),
        ("caught", "success", "caught ValueError: it is broken"),
        ("calling", "error", "not today"),
    ],
)
async def test_what_code_in_a_tool_raises_is_the_result_of_the_call(
    lab: Lab, tool: str, outcome: str, content: str
) -> None:
    lab.script("main", Reply("", calls=(Call(tool, {"name": "n"}),)), Reply("ok"))
    context = await lab.machine.until(await lab.machine.start(nests), "ended")
    assert context.output == "ok"
    (result,) = await results(lab, context.execution_id)
    assert result.outcome == outcome
    assert content in result.content


@pytest.mark.behaviour("nested:same-call")
async def test_the_same_call_twice_in_one_run_is_made_twice(lab: Lab) -> None:
    same = Call("step", {"name": "s"})
    lab.script("main", Reply("", calls=(same, same)), Reply("", calls=(same,)), Reply("ok"))
    context = await lab.machine.until(await lab.machine.start(nests), "ended")
    assert context.output == "ok"
    assert done == ["s", "s", "s"]
    assert [result.content for result in await results(lab, context.execution_id)] == ["did s"] * 3


@pytest.mark.behaviour("nested:long")
async def test_a_very_long_result_is_cut_for_the_model_and_kept_by_the_task(lab: Lab) -> None:
    lab.script("main", Reply("", calls=(Call("wordy", {"name": "n"}),)), Reply("ok"))
    context = await lab.machine.until(await lab.machine.start(nests), "ended")
    assert context.output == "ok"
    (result,) = await results(lab, context.execution_id)
    assert 90_000 < len(result.content) < 110_000
    assert "artifact://" in result.content


@pytest.mark.behaviour("nested:expired")
async def test_a_pause_in_a_tool_that_nobody_answers_ends_by_itself_and_is_not_waited_for_any_more(lab: Lab) -> None:
    lab.script("main", Reply("", calls=(Call("patient", {"name": "n"}),)), Reply("ok"))
    id = await lab.machine.start(nests)
    await lab.machine.until(id, "waiting")
    assert (await lab.machine.row(id)).waiting_for == "pause"
    seen = set()
    async with asyncio.timeout(20):
        async for _ in lab.machine.feed.follow(LOCAL, id):
            row = await lab.machine.row(id)
            seen.add((row.waiting_for, len(await lab.machine.database.read(interrupts.list_open(LOCAL, id)))))
            if row.state == "ended":
                break
    assert (await lab.machine.context(id)).output == "ok"
    (result,) = await results(lab, id)
    assert result.content == "heard None"
    assert ("pause", 0) not in seen
    assert ("timer", 0) in seen


@task.with_options(effect="once")
async def careful(name: str) -> str:
    """Act once, after a colleague was asked."""
    answer = await pause("colleague")
    done.append(name)
    acting[-1].set()
    if done.count(name) == 1:
        await asyncio.Event().wait()
    return f"did {name} as {answer} said"


@workflow.with_options(namespace="nested")
async def acts(ctx: ExecutionContext[Any]) -> Any:
    """A task that acts once, and waits before."""
    try:
        return await careful(ctx.input)
    except ExecutionError as error:
        return type(error).__name__


@pytest.mark.behaviour("nested:once")
async def test_a_task_that_acts_once_and_waits_first_goes_on_but_is_not_run_again_after_a_crash(lab: Lab) -> None:
    machine = lab.machine
    context = await machine.run(acts, "x")
    assert context.is_paused
    await machine.resume(context.execution_id, "Ann", "colleague")
    await asyncio.wait_for(acting[-1].wait(), 20)
    entries = [s.entry for s in await machine.entries(context.execution_id) if isinstance(s.entry, Entry)]
    assert len([entry for entry in entries if isinstance(entry, TaskStarted) and entry.name == "careful"]) == 2
    await machine.admission.cancel(LOCAL, context.execution_id)
    copy = await machine.copy(context.execution_id, entries, "copy")
    machine.dispatch.nudge(copy)
    crashed = await machine.until(copy, "ended")
    assert crashed.output == "ExecutionInterrupted"
    assert done == ["x"]


@pytest.mark.behaviour("nested:approvals")
async def test_the_approvals_of_a_workflow_are_those_of_its_agents_too(lab: Lab) -> None:
    lab.script("main", Reply("", calls=(Call("mixture", {"name": "m"}),)), Reply("ok"))
    id = await lab.machine.start(nests)
    await lab.machine.until(id)
    (asked,) = await lab.machine.executions.approvals(LOCAL, id, state="open", after=None, limit=50)
    assert interrupts.payload_of(asked)["tool"] == "danger"
    closed = await lab.machine.executions.decide(LOCAL, id, asked.id, Decision("approve"))
    assert closed.state == "answered"
