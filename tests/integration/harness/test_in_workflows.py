"""ctx.init: a harness in a workflow, whose operations are remembered as its tasks are."""

from typing import Any

import pytest
from pydantic import BaseModel

from flux import define_agent_profile, pause, workflow
from flux.agents.code.stores import SessionKey
from flux.errors import HarnessExists, InvalidInput
from flux.testing import Call, Reply, ScriptedModel
from flux.testing.session_stores import MemorySessionStore
from tests.integration.harness.conftest import MakeAgent


class City(BaseModel):
    name: str


@pytest.mark.behaviour("harness:workflow:init")
async def test_operations_are_remembered_when_the_workflow_goes_on(
    desk: MakeAgent, models: dict[str, ScriptedModel]
) -> None:
    models["critic"] = ScriptedModel([Reply("Seen.")])
    agent = desk(
        [Reply("One."), Reply("", calls=(Call("finish", {"name": "Rome"}),)), Reply("Three.")],
        subagents=[define_agent_profile(name="critic", model="test/critic")],
    )

    @workflow
    async def story(ctx: Any) -> Any:
        harness = await ctx.init(agent)
        session = await harness.session()
        first = await session.prompt("1")
        city = await session.prompt("2", result=City)
        shown = await session.shell("echo hi")
        below = await session.task("Look", agent="critic")
        told = await pause("ask")
        last = await session.prompt(f"3 {told}")
        return [harness.id == ctx.execution_id, first.text, city.data.name, shown.stdout, below.text, last.text]

    paused = await story.run_async()
    assert paused.is_paused
    before = len(models["main"].requests)
    done = await story.resume_async(paused.execution_id, "now")
    assert done.output == [True, "One.", "Rome", "hi\n", "Seen.", "Three."]
    assert len(models["main"].requests) == before + 1


@pytest.mark.behaviour("harness:store:workflow")
async def test_a_session_of_a_workflow_goes_on_from_its_store(desk: MakeAgent) -> None:
    store = MemorySessionStore()
    agent = desk([Reply("One."), Reply("Two."), Reply("Three.")], persist=store)

    @workflow
    async def story(ctx: Any) -> Any:
        session = await (await ctx.init(agent, id="t-1")).session()
        answer = await session.prompt("next")
        await session.shell("echo hi")
        return [answer.text, len(await session.history())]

    first = await story.run_async()
    assert first.output[0] == "One."
    assert list(store.saved) == [SessionKey("desk", "t-1", "default")]
    second = await story.run_async()
    assert second.output == ["Three.", 2 * first.output[1]]
    assert b"Three." in store.saved[SessionKey("desk", "t-1", "default")]


@pytest.mark.behaviour("harness:workflow:init")
async def test_a_name_is_used_once_in_an_execution(desk: MakeAgent) -> None:
    agent = desk([Reply("One.")])

    @workflow
    async def twice(ctx: Any) -> Any:
        await ctx.init(agent)
        other = await ctx.init(agent, name="other")
        try:
            await ctx.init(agent)
        except HarnessExists as error:
            return [other.name, str(error)]

    done = await twice.run_async()
    assert done.output == ["other", "this execution has a harness 'default' already; give another name="]
    with pytest.raises(InvalidInput, match="works in the code of a workflow"):
        await agent.init_in(done)
