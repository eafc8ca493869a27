"""Questions below an operation: of sub-agents, and in workflows."""

from typing import Any

import pytest

from flux import define_agent_profile, define_tool, init_agent, workflow
from flux.testing import Call, Reply, ScriptedModel
from tests.integration.harness.conftest import MakeAgent
from tests.integration.harness.test_sessions import texts

RISKY = define_tool("risky", lambda args: "did it", description="d", parameters={}, requires_approval=True)


@pytest.mark.behaviour("harness:session:answers")
async def test_a_question_of_a_sub_agent_is_answered_in_the_session(
    desk: MakeAgent, models: dict[str, ScriptedModel]
) -> None:
    models["below"] = ScriptedModel([Reply("", calls=(Call("risky"),)), Reply("Done below.")])
    below = define_agent_profile(name="below", model="test/below", tools=[RISKY])
    script = [Reply("", calls=(Call("task", {"prompt": "Go", "agent": "below"}),)), Reply("All done.")]
    session = await (await init_agent(desk(script, subagents=[below]), id="t-1")).session()
    for said in ("Done below.", "All done."):
        handle = session.task("Go", agent="below") if said == "Done below." else session.prompt("Go")
        while not (asked := await session.interrupts()):
            assert not handle.done
        await session.respond(asked[0].id)
        assert (await handle).text == said
    assert "Done below." in texts(await session.history())


@pytest.mark.behaviour("harness:workflow:waits")
async def test_a_question_in_a_workflow_pauses_it(desk: MakeAgent) -> None:
    agent = desk([Reply("", calls=(Call("risky"),)), Reply("Done.")], tools=[RISKY])

    @workflow
    async def asks(ctx: Any) -> Any:
        session = await (await ctx.init(agent)).session()
        return (await session.prompt("Go")).text

    paused = await asks.run_async()
    assert paused.is_paused
    assert "risky" in str(paused.pause)
