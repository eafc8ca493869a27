"""Sub-agents, as a table of cases: what the parent and its child do, and what is in their logs afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flux.agents.define.definition import define
from flux.engine.intake.answers import Decision
from flux.errors import DefinitionInvalid
from flux.events import (
    ApprovalRequired,
    Cancelled,
    ChatResponse,
    Entry,
    RunFailed,
    SessionEndedEntry,
    SubagentChanged,
    ToolDone,
    UsageCounted,
)
from flux.messages import ModelFailure, ToolResult, Usage
from flux.models.base import ModelRequest
from flux.models.scripted import Call, Reply, Turn
from flux.store.database import LOCAL
from flux.store.interrupts import payload_of
from flux.testing import ScriptedModel
from tests.integration.agents.tools import Bench
from tests.integration.agents.world import Committed, World, of, opened, outcomes

HELPER = {"name": "helper", "model": "test/helper", "description": "does the work"}


def ask(instruction: str = "dig", **more: Any) -> Call:
    """The call that hands work to the helper."""
    return Call("delegate", {"agent": "helper", "instruction": instruction, **more})


async def family(
    world: World, parent: Sequence[Turn], child: Sequence[Turn], *, inline: bool = False, **helper: Any
) -> None:
    """An agent that can delegate to `helper`: defined inside it, or stored."""
    world.models["helper"] = ScriptedModel(child)
    fields = {**HELPER, **helper}
    if inline:
        await world.agent(parent, subagents=[fields])
        return
    await world.process.agents.put(LOCAL, define(fields), create=True, update=True)
    await world.agent(parent, agents=["helper"])


async def child_log(world: World) -> list[Entry]:
    """The log of the first child."""
    child = of(await world.log(), SubagentChanged)[0].child
    rows = await world.process.sessions.entries(LOCAL, child, 0, 1000)
    return [entry for row in rows if isinstance(entry := row.stored().entry, Entry)]


@pytest.mark.behaviour("agents:delegate:result")
@pytest.mark.parametrize("inline", [False, True])
async def test_the_answer_of_a_sub_agent_is_the_result_of_the_call(world: World, inline: bool) -> None:
    child = [Reply("gold", usage=Usage(10, 5))]
    await family(world, [Reply("", calls=(ask(context="here"),)), Reply("done")], child, inline=inline)
    log = await world.ask("go")
    assert world.prompts()[-1][-1] == "delegate: gold"
    assert world.prompts("helper") == [["user: here\n\ndig"]]
    assert [changed.status for changed in of(log, SubagentChanged)] == ["started", "done"]
    (used,) = of(log, UsageCounted)
    assert used.tokens == Usage(10, 5)
    assert (await world.row()).spent.tokens.total >= 15
    assert len(of(await child_log(world), ChatResponse)) == 1
    assert await world.faults() == []


@pytest.mark.behaviour("agents:delegate:catalogue")
async def test_the_model_is_told_whom_it_can_delegate_to(world: World) -> None:
    await family(world, [Reply("ok")], [])
    await world.ask("go")
    (request,) = world.model.requests
    assert "- helper: does the work" in request.system
    assert [tool.name for tool in request.tools] == ["delegate"]


@pytest.mark.behaviour("agents:delegate:nobody")
async def test_without_colleagues_there_is_no_such_tool(world: World) -> None:
    await world.agent([Reply("ok")])
    await world.ask("go")
    assert world.model.requests[0].tools == ()


@pytest.mark.behaviour("agents:delegate:unknown")
async def test_an_agent_that_is_not_there_is_a_failure_that_names_those_that_are(world: World) -> None:
    wrong = Call("delegate", {"agent": "nobody", "instruction": "dig"})
    await family(world, [Reply("", calls=(wrong,)), Reply("ok")], [])
    await world.ask("go")
    assert "no agent 'nobody'" in world.prompts()[-1][-1]
    assert "helper" in world.prompts()[-1][-1]


@pytest.mark.behaviour("agents:delegate:question")
async def test_a_question_of_a_sub_agent_is_asked_at_the_root(world: World) -> None:
    child = [Reply("", calls=(Call("wipe"),)), Reply("wiped")]
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], child, tools=["wipe"])
    await world.start("go")
    assert await world.rest() == "waiting"
    assert (await world.row()).waiting_for == "approval"
    (asked,) = of(await world.log(), ApprovalRequired)
    assert asked.tool == "wipe"
    assert asked.agent == "helper"
    assert asked.session == of(await world.log(), SubagentChanged)[0].child
    (question,) = await world.questions()
    await world.answer(question, "approve")
    await world.rest("idle")
    assert world.prompts()[-1][-1] == "delegate: wiped"
    assert outcomes(await child_log(world)) == [("wipe", "success")]
    assert await world.faults() == []


@pytest.mark.behaviour("agents:delegate:rejected")
async def test_a_rejection_is_for_the_tool_of_the_sub_agent_not_for_the_delegation(world: World) -> None:
    child = [Reply("", calls=(Call("wipe"),)), Reply("could not")]
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], child, tools=["wipe"])
    await world.start("go")
    await world.rest()
    (question,) = await world.questions()
    await world.answer(question, "reject", reason="no")
    await world.rest("idle")
    assert outcomes(await child_log(world)) == [("wipe", "denied")]
    assert outcomes(await world.log()) == [("delegate", "success")]


@pytest.mark.behaviour("agents:delegate:question-order")
async def test_two_questions_of_one_sub_agent_are_answered_in_any_order(world: World, bench: Bench) -> None:
    calls = (Call("wipe", {"n": 1}), Call("wipe", {"n": 2}))
    await family(
        world, [Reply("", calls=(ask(),)), Reply("done")], [Reply("", calls=calls), Reply("ok")], tools=["wipe"]
    )
    await world.start("go")
    await world.rest()
    first, second = sorted(await world.questions(), key=lambda asked: payload_of(asked)["args"]["n"])
    await world.answer(second, "approve")
    await world.until(lambda: _done(bench, "wipe 2"))
    assert await world.rest() == "waiting"
    assert [asked.id for asked in await world.questions()] == [first.id]
    await world.answer(first, "approve")
    await world.rest("idle")
    assert sorted(bench.done) == ["wipe 1", "wipe 2"]
    assert await world.faults() == []


async def _done(bench: Bench, what: str) -> bool:
    return what in bench.done


@pytest.mark.behaviour("agents:delegate:siblings")
async def test_siblings_run_while_a_sub_agent_waits(world: World, bench: Bench) -> None:
    child = [Reply("", calls=(Call("wipe"),)), Reply("wiped")]
    calls = (ask(), Call("pay", {"n": 7}))
    world.models["helper"] = ScriptedModel(child)
    helper = define({**HELPER, "tools": ["wipe"]})
    await world.process.agents.put(LOCAL, helper, create=True, update=True)
    await world.agent([Reply("", calls=calls), Reply("done")], agents=["helper"], tools=["pay"])
    await world.start("go")
    await world.rest()
    assert bench.done == ["pay 7"]
    (question,) = await world.questions()
    await world.answer(question, "approve")
    await world.rest("idle")
    assert bench.done == ["pay 7", "wipe 0"]


@pytest.mark.behaviour("agents:delegate:failed")
async def test_a_sub_agent_that_fails_is_a_failed_call(world: World) -> None:
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], [ModelFailure("it is down", "rejected")])
    log = await world.ask("go")
    assert outcomes(log) == [("delegate", "error")]
    assert "it is down" in world.prompts()[-1][-1]
    assert of(log, SubagentChanged)[-1].status == "failed"


@pytest.mark.behaviour("agents:delegate:cancel")
async def test_stopping_the_run_stops_the_sub_agent(world: World, bench: Bench) -> None:
    child = [Reply("", calls=(Call("hold"),)), Reply("held")]
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], child, tools=["hold"])
    await world.start("go")
    await bench.begun.wait()
    await world.cancel()
    await world.rest("idle")
    assert bench.cancelled == ["hold 0"]
    log = await child_log(world)
    assert len(of(log, Cancelled)) == 1
    assert outcomes(log) == [("hold", "cancelled")]
    assert outcomes(await world.log()) == [("delegate", "cancelled")]
    assert await world.faults() == []


@pytest.mark.behaviour("agents:delegate:cancel-waiting")
async def test_stopping_a_run_that_waits_for_a_sub_agent_s_question_stops_that_too(world: World) -> None:
    child = [Reply("", calls=(Call("wipe"),)), Reply("wiped")]
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], child, tools=["wipe"])
    await world.start("go")
    await world.rest()
    await world.cancel()
    await world.rest("idle")
    assert len(of(await child_log(world), Cancelled)) == 1
    assert await world.questions() == []
    assert await world.faults() == []


@pytest.mark.behaviour("agents:delegate:ended")
async def test_ending_the_session_ends_its_children(world: World) -> None:
    child = [Reply("", calls=(Call("wipe"),)), Reply("wiped")]
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], child, tools=["wipe"])
    await world.start("go")
    await world.rest()
    await world.process.sessions.end(LOCAL, world.id)
    log = await child_log(world)
    assert len(of(log, Cancelled)) == 1
    assert len(of(log, SessionEndedEntry)) == 1


@pytest.mark.behaviour("agents:delegate:depth")
async def test_delegation_stops_four_levels_down(world: World) -> None:
    again = Call("delegate", {"agent": "agent", "instruction": "deeper"})

    def script(request: ModelRequest) -> Turn:
        fresh = not isinstance(request.messages[-1], ToolResult)
        return Reply("", calls=(again,)) if request.tools and fresh else Reply("up")

    await world.agent(ScriptedModel(script), agents=["agent"], description="itself")
    await world.ask("go")
    tools = [[tool.name for tool in request.tools] for request in world.model.requests]
    assert tools == [["delegate"]] * 4 + [[]] + [["delegate"]] * 4
    assert await world.faults() == []


@pytest.mark.behaviour("agents:delegate:depth-question")
async def test_a_question_three_levels_down_surfaces_and_its_answer_reaches_all(world: World) -> None:
    world.models["low"] = ScriptedModel([Reply("", calls=(Call("wipe"),)), Reply("wiped")])
    world.models["helper"] = ScriptedModel(
        [Reply("", calls=(Call("delegate", {"agent": "low", "instruction": "x"}),)), Reply("middle")]
    )
    low = {"name": "low", "model": "test/low", "description": "digs", "tools": ["wipe"]}
    await world.agent([Reply("", calls=(ask(),)), Reply("done")], subagents=[{**HELPER, "subagents": [low]}])
    await world.start("go")
    await world.rest()
    (question,) = await world.questions()
    await world.answer(question, "approve")
    await world.rest("idle")
    assert world.prompts()[-1][-1] == "delegate: middle"
    assert await world.faults() == []


@pytest.mark.behaviour("agents:delegate:not-from-outside")
async def test_a_driven_session_takes_nothing_but_answers(world: World) -> None:
    child = [Reply("", calls=(Call("wipe"),)), Reply("wiped")]
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], child, tools=["wipe"])
    root = await world.start("go")
    await world.rest()
    (question,) = await world.questions()
    world.id = of(await world.log(), SubagentChanged)[0].child
    for act in (world.say("hi"), world.cancel(), world.process.sessions.end(LOCAL, world.id)):
        with pytest.raises(Exception, match=f"driven by {root}"):
            await act
    await world.process.sessions.answer(LOCAL, world.id, question.id, Decision("approve"))
    world.id = root
    await world.rest("idle")
    assert outcomes(await world.log()) == [("delegate", "success")]


@pytest.mark.behaviour("agents:delegate:budget")
async def test_a_sub_agent_spends_from_the_budget_of_who_delegates(world: World) -> None:
    child = [Reply("", calls=(Call("look"),), usage=Usage(90, 20)), Reply("never", usage=Usage(1, 1))]
    world.models["helper"] = ScriptedModel(child)
    helper = {**HELPER, "tools": ["look"]}
    parent = [Reply("", calls=(ask(),), usage=Usage(5, 5)), Reply("done")]
    await world.agent(parent, subagents=[helper], budget={"run": {"max_tokens": 100}})
    log = await world.ask("go")
    assert len(world.models["helper"].requests) == 1
    (failed,) = of(log, RunFailed)
    assert "budget of 100 tokens" in failed.message


@pytest.mark.behaviour("agents:delegate:restart")
async def test_a_sub_agent_s_question_survives_a_restart(tmp_path: Path) -> None:
    bench, committed = Bench(), Committed()
    parent: list[Turn] = [Reply("", calls=(ask(),)), Reply("done")]
    child: list[Turn] = [Reply("", calls=(Call("wipe"),)), Reply("wiped")]
    async with opened(tmp_path, bench.tools(), committed=committed) as before:
        await family(before, parent, child, tools=["wipe"])
        id = await before.start("go")
        await before.rest()
    async with opened(tmp_path, bench.tools(), committed=committed) as world:
        world.id = id
        world.models.update(main=ScriptedModel(parent), helper=ScriptedModel(child))
        (question,) = await world.questions()
        await world.answer(question, "approve")
        await world.rest("idle")
        assert world.prompts()[-1][-1] == "delegate: wiped"
        assert bench.done == ["wipe 0"]
        assert of(await world.log(), ToolDone)[0].outcome == "success"
        assert await world.faults() == []


@pytest.mark.behaviour("agents:delegate:checked")
@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"agents": ["nobody"]}, "no agent 'nobody'"),
        ({"agents": ["silent"]}, "silent has no description"),
        ({"agents": ["helper", "helper"]}, "'helper' is given twice"),
        ({"subagents": [{"name": "low", "model": "test/low"}]}, "low has no description"),
        ({"subagents": [HELPER], "agents": ["helper"]}, "helper is in subagents too"),
        ({"subagents": [{**HELPER, "tools": ["nonsense"]}]}, "nonsense"),
        ({"subagents": [{**HELPER, "modle": "x"}]}, "modle"),
    ],
)
async def test_colleagues_are_checked_when_the_agent_is_stored(
    world: World, fields: dict[str, Any], problem: str
) -> None:
    world.models.update({name: ScriptedModel([]) for name in ("helper", "silent", "low")})
    for made in (HELPER, {"name": "silent", "model": "test/silent"}):
        await world.process.agents.put(LOCAL, define(made), create=True, update=True)
    with pytest.raises(DefinitionInvalid, match=problem):
        await world.agent([], **fields)
