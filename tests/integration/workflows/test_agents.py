"""`agent()` in workflows, as a table of cases."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, pause, task, workflow
from flux.agents.asking import EXECUTOR
from flux.agents.executor import SessionExecutor
from flux.agents.parts.task_tools import TaskTools
from flux.agents.turn.binding import Binder
from flux.deltas import decode_delta
from flux.engine.intake.answers import Decision
from flux.entries.workflows import TaskCompleted, WorkflowFailed
from flux.errors import DefinitionInvalid, InvalidInput
from flux.events import ApprovalRequired, Cancelled, ModelFailed, Progress, UserSaid
from flux.messages import ModelFailure, ToolResult, Usage, text_of
from flux.models.base import ModelRequest
from flux.models.registry import ModelRegistry
from flux.models.scripted import Call, Reply, ScriptedModel, Turn
from flux.settings import Settings
from flux.store import driven, interrupts
from flux.store.database import LOCAL, Database, one
from flux.tasks import parallel
from flux.tasks.ai import agent
from flux.tasks.ai.memory import working_memory
from flux.tasks.ai.tools import directory
from flux.tasks.ai.tools.system_tools import DEFAULT_BLOCKLIST
from tests.integration.workflows.machine import Machine, working

done: list[str] = []


class Lab:
    """A machine whose agents follow scripts."""

    def __init__(self, machine: Machine, home: Path) -> None:
        self.machine = machine
        self.models: dict[str, ScriptedModel] = {}
        registry = ModelRegistry({}, {}, {"test": lambda name: self.models[name]})
        executor = SessionExecutor(
            machine.database,
            Binder(registry, home, {}),
            registry,
            Settings(home=home),
            before=[TaskTools(machine.services)],
        )
        machine.services.kept.put(EXECUTOR, executor)

    def script(self, name: str, *turns: Turn) -> ScriptedModel:
        """What the model `test/NAME` says."""
        self.models[name] = ScriptedModel(list(turns))
        return self.models[name]

    async def children(self, root: str) -> list[str]:
        """The sessions that an execution drives."""
        rows = await self.machine.database.read(
            one("select id from executions where root = :root and driver is not null order by created", root=root)
        )
        return [row[0] for row in rows]


@pytest.fixture
async def lab(database: Database, tmp_path: Path) -> AsyncIterator[Lab]:
    done.clear()
    async with working(database) as machine:
        yield Lab(machine, tmp_path)


@task
async def weather(city: str) -> str:
    """The weather of a city."""
    done.append(city)
    return f"sunny in {city}"


@task.with_options(requires_approval=True)
async def wipe(disk: str) -> str:
    """Wipe a disk."""
    done.append(disk)
    return f"{disk} wiped"


@task
async def inquire(about: str) -> str:
    """Ask a colleague, who takes days."""
    await weather(about)
    return str(await pause("colleague", {"about": about}))


@workflow.with_options(namespace="inline")
async def asks(ctx: ExecutionContext[Any]) -> Any:
    """One agent, asked once."""
    tools = {"weather": weather, "wipe": wipe, "inquire": inquire}
    given = ctx.input or {}
    helper = await agent(
        "Help.", model="test/main", name="helper", tools=[tools[name] for name in given.get("tools", [])]
    )
    return await helper.with_options(**given.get("options", {}))("go", context=given.get("context", ""))


@pytest.mark.behaviour("inline:agent:answer")
async def test_an_agent_is_a_task_that_answers(lab: Lab) -> None:
    model = lab.script("main", Reply("hello"))
    context = await lab.machine.run(asks, {"context": "in the morning"})
    assert context.output == "hello"
    (request,) = model.requests
    assert request.system == "Help."
    assert [part.text for part in request.messages[0].parts] == ["in the morning\n\ngo"]  # type: ignore[union-attr]


@pytest.mark.behaviour("inline:agent:name")
async def test_an_agent_without_a_name_is_called_after_its_model() -> None:
    assert (await agent("", model="ollama/llama3.2:1b")).name == "agent_ollama_llama3_2_1b"


@pytest.mark.behaviour("inline:agent:tools")
async def test_its_tools_are_tasks_whose_calls_are_events(lab: Lab) -> None:
    model = lab.script("main", Reply("", calls=(Call("weather", {"city": "Oslo"}),)), Reply("warm"))
    context = await lab.machine.run(asks, {"tools": ["weather"]})
    assert context.output == "warm"
    assert done == ["Oslo"]
    schema = model.requests[0].tools[0]
    assert (schema.name, schema.description) == ("weather", "The weather of a city.")
    result = model.requests[1].messages[-1]
    assert isinstance(result, ToolResult)
    assert result.content == "sunny in Oslo"
    names = [stored.entry.name for stored in await lab.machine.entries(context.execution_id)
             if isinstance(stored.entry, TaskCompleted)]  # fmt: skip
    assert names == ["weather", "helper"]


@pytest.mark.behaviour("inline:agent:approval")
async def test_an_approval_inside_pauses_the_workflow(lab: Lab) -> None:
    lab.script("main", Reply("", calls=(Call("wipe", {"disk": "sda"}),)), Reply("clean"))
    context = await lab.machine.run(asks, {"tools": ["wipe"]})
    assert context.is_paused
    row = await lab.machine.row(context.execution_id)
    assert row.waiting_for == "approval"
    (asked,) = [s.entry for s in await lab.machine.entries(row.id) if isinstance(s.entry, ApprovalRequired)]
    assert (asked.tool, asked.args) == ("wipe", {"disk": "sda"})
    assert done == []
    await lab.machine.admission.answer(LOCAL, row.id, asked.id, Decision("approve"))
    context = await lab.machine.until(row.id, "ended")
    assert context.output == "clean"
    assert done == ["sda"]


@pytest.mark.behaviour("inline:agent:pause-inside")
async def test_a_pause_inside_a_tool_pauses_the_workflow(lab: Lab) -> None:
    lab.script("main", Reply("", calls=(Call("inquire", {"about": "Oslo"}),)), Reply("told"))
    context = await lab.machine.run(asks, {"tools": ["inquire"]})
    assert context.is_paused
    (asked,) = await lab.machine.database.read(interrupts.list_open(LOCAL, context.execution_id))
    assert interrupts.payload_of(asked)["name"] == "colleague"
    await lab.machine.resume(context.execution_id, "fine", "colleague")
    context = await lab.machine.until(context.execution_id, "ended")
    assert context.output == "told"
    assert done == ["Oslo"]  # the task inside the tool was not run again


@pytest.mark.behaviour("inline:agent:restart")
async def test_it_goes_on_in_another_process_without_asking_the_model_again(
    lab: Lab, database: Database, tmp_path: Path
) -> None:
    lab.script("main", Reply("", calls=(Call("weather", {"city": "Oslo"}), Call("wipe", {"disk": "a"}))), Reply("ok"))
    context = await lab.machine.run(asks, {"tools": ["weather", "wipe"]})
    id = context.execution_id
    (asked,) = await database.read(interrupts.list_open(LOCAL, id))
    async with working(database) as other:
        second = Lab(other, tmp_path)
        model = second.script("main", Reply("never"), Reply("ok"))
        await other.admission.answer(LOCAL, id, asked.id, Decision("approve"))
        context = await other.until(id, "ended")
        assert context.output == "ok"
        assert len(model.requests) + len(lab.models["main"].requests) == 2
    assert done == ["Oslo", "a"]


@pytest.mark.behaviour("inline:agent:failed")
async def test_an_agent_that_fails_is_a_failed_task(lab: Lab) -> None:
    lab.script("main", ModelFailure("no such model", "unknown_model"))
    context = await lab.machine.run(asks)
    assert context.has_failed
    failed = (await lab.machine.entries(context.execution_id))[-1].entry
    assert isinstance(failed, WorkflowFailed)
    assert failed.message == "the agent helper failed: no such model"


@pytest.mark.behaviour("inline:agent:retry")
async def test_an_agent_that_is_tried_again_goes_on_in_its_session(lab: Lab) -> None:
    look = Reply("", calls=(Call("weather", {"city": "Oslo"}),))
    script: Iterator[Turn] = iter([look, ModelFailure("odd", "rejected"), Reply("fine")])
    lab.models["main"] = model = ScriptedModel(lambda request: next(script))
    options = {"retry_max_attempts": 2, "retry_delay": 0}
    context = await lab.machine.run(asks, {"tools": ["weather"], "options": options})
    assert context.output == "fine"
    assert done == ["Oslo"]
    (child,) = await lab.children(context.execution_id)
    said = [s.entry for s in await lab.machine.entries(child) if isinstance(s.entry, UserSaid)]
    assert len(said) == 2
    assert len(model.requests) == 3


@workflow.with_options(namespace="inline")
async def crowd(ctx: ExecutionContext[Any]) -> Any:
    """Several agents at once."""
    one_ = await agent("First.", model="test/a", name="a", tools=[weather])
    two = await agent("Second.", model="test/b", name="b", tools=[weather])
    return await parallel(one_("x"), two("x"), one_("y"))


@pytest.mark.behaviour("inline:agent:parallel")
async def test_agents_in_parallel_have_sessions_of_their_own(lab: Lab) -> None:
    def script(request: ModelRequest) -> Turn:
        if isinstance(request.messages[-1], ToolResult):
            return Reply(f"{request.system} {request.messages[-1].content}")
        return Reply("", calls=(Call("weather", {"city": request.messages[0].parts[0].text}),))  # type: ignore[union-attr]

    lab.models.update(a=ScriptedModel(script), b=ScriptedModel(script))
    context = await lab.machine.run(crowd)
    assert context.output == ["First. sunny in x", "Second. sunny in x", "First. sunny in y"]
    assert sorted(done) == ["x", "x", "y"]
    assert len(await lab.children(context.execution_id)) == 3


@pytest.mark.behaviour("inline:agent:cancel")
async def test_cancelling_the_workflow_stops_the_agent(lab: Lab) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    class Slow(ScriptedModel):
        async def stream(self, request: ModelRequest) -> Any:
            begun.set()
            try:
                await asyncio.Event().wait()
                yield
            finally:
                stopped.set()

    lab.models["main"] = Slow([])
    id = await lab.machine.start(asks)
    await asyncio.wait_for(begun.wait(), 20)
    await lab.machine.admission.cancel(LOCAL, id)
    context = await lab.machine.until(id, "ended")
    assert context.is_cancelled
    assert stopped.is_set()
    (child,) = await lab.children(id)
    assert any(isinstance(s.entry, Cancelled) for s in await lab.machine.entries(child))
    (row, _) = await lab.machine.database.read(driven.chain(LOCAL, child))
    assert row.state == "ended"


@workflow.with_options(namespace="inline")
async def boss(ctx: ExecutionContext[Any]) -> Any:
    """An agent that delegates to another one."""
    clerk = await agent("Do.", model="test/clerk", name="clerk", description="does it", tools=[weather])
    return await (await agent("Lead.", model="test/main", name="lead", agents=[clerk]))("go")


@pytest.mark.behaviour("inline:agent:agents")
async def test_an_agent_may_delegate_to_another_one(lab: Lab) -> None:
    order = Call("delegate", {"agent": "clerk", "instruction": "look"})
    lab.script("main", Reply("", calls=(order,), usage=Usage(5, 5)), Reply("led", usage=Usage(1, 1)))
    look = Call("weather", {"city": "Rome"})
    lab.script("clerk", Reply("", calls=(look,), usage=Usage(20, 2)), Reply("did", usage=Usage(3, 3)))
    context = await lab.machine.run(boss)
    assert context.output == "led"
    assert done == ["Rome"]
    row = await lab.machine.row(context.execution_id)
    assert row.spent.tokens == Usage(29, 11)


@pytest.mark.behaviour("inline:agent:progress")
async def test_its_tokens_are_the_progress_of_the_task(lab: Lab) -> None:
    lab.script("main", Reply("one two three"))
    id = await lab.machine.start(asks)
    seen: list[Any] = []
    async with asyncio.timeout(20):
        async for batch in lab.machine.feed.follow(LOCAL, id):
            seen += [decode_delta(frame.data) for frame in batch if not frame.entry]
            if (await lab.machine.row(id)).state == "ended":
                break
    values = [delta.value for delta in seen if isinstance(delta, Progress) and delta.name == "helper"]
    assert "".join(value["token"] for value in values if "token" in value) == "one two three"


@pytest.mark.behaviour("inline:agent:wrong")
async def test_what_cannot_work_is_refused_when_the_agent_is_made() -> None:
    with pytest.raises(DefinitionInvalid, match="provider/model"):
        await agent("", model="gpt")
    with pytest.raises(InvalidInput, match="weather is a task, not an agent"):
        await agent("", model="a/b", agents=[weather])
    clerk = await agent("", model="a/b", name="clerk")
    with pytest.raises(InvalidInput, match="clerk has no description"):
        await agent("", model="a/b", agents=[clerk])


@pytest.mark.behaviour("inline:agent:alone")
async def test_outside_a_workflow_it_is_run_by_an_execution_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUX_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert "FLUX_DATABASE_URL" not in os.environ
    parrot = await agent("Repeat.", model="scripted/echo", name="parrot")
    assert await parrot("hello") == "hello"


@pytest.mark.behaviour("inline:agent:transient")
async def test_a_model_that_stumbles_is_called_again_inside(lab: Lab) -> None:
    script: Iterator[Turn] = iter([ModelFailure("busy", "transient", retry_after=0.0), Reply("ok")])
    lab.models["main"] = ScriptedModel(lambda request: next(script))
    context = await lab.machine.run(asks)
    assert context.output == "ok"
    (child,) = await lab.children(context.execution_id)
    assert any(isinstance(s.entry, ModelFailed) for s in await lab.machine.entries(child))


@workflow.with_options(namespace="inline")
async def lists(ctx: ExecutionContext[Any]) -> Any:
    """An agent with bundled tools."""
    clerk = await agent("", model="test/main", name="clerk", tools=[*directory(workspace="."), weather])
    return await clerk("go")


@pytest.mark.behaviour("inline:agent:bundled-tools")
async def test_bundled_tools_may_be_given_beside_tasks(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "plan.txt").write_text("x")
    model = lab.script("main", Reply("", calls=(Call("list_directory", {"path": "."}),)), Reply("ok"))
    context = await lab.machine.run(lists)
    assert context.output == "ok"
    assert [tool.name for tool in model.requests[0].tools] == ["list_directory", "directory_tree", "weather"]
    result = model.requests[1].messages[-1]
    assert isinstance(result, ToolResult)
    assert "plan.txt" in result.content
    assert "rm -rf" in " ".join(DEFAULT_BLOCKLIST)


@workflow.with_options(namespace="inline")
async def remembers(ctx: ExecutionContext[Any]) -> Any:
    """Two agents that share what was said, and one that does not."""
    memory = working_memory(window=3)
    first = await agent("First.", model="test/a", name="first", working_memory=memory)
    second = await agent("Second.", model="test/b", name="second", working_memory=memory)
    other = await agent("Other.", model="test/a", name="other", working_memory=working_memory())
    said = [await first("one"), await second("two"), await other("three")]
    await pause("look")
    return [*said, await first("four")]


@pytest.mark.behaviour("inline:agent:working-memory")
async def test_agents_with_one_working_memory_share_the_conversation(lab: Lab) -> None:
    a = lab.models["a"] = ScriptedModel(lambda request: Reply("a"))
    b = lab.models["b"] = ScriptedModel(lambda request: Reply("b"))
    context = await lab.machine.run(remembers)
    await lab.machine.resume(context.execution_id)
    context = await lab.machine.until(context.execution_id, "ended")
    assert context.output == ["a", "b", "a", "a"]

    def told(model: ScriptedModel) -> list[tuple[str, list[str]]]:
        texts = [[text_of(message.parts) for message in request.messages] for request in model.requests]  # type: ignore[union-attr]
        return [(request.system, said) for request, said in zip(model.requests, texts, strict=True)]

    assert told(b) == [("Second.", ["one", "a", "two"])]
    assert told(a) == [("First.", ["one"]), ("Other.", ["three"]), ("First.", ["two", "b", "four"])]
    assert len(await lab.children(context.execution_id)) == 2
