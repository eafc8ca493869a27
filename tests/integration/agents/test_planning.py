"""Plans of sessions: made, reviewed, worked by, and kept over turns, restarts and compaction."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from flux.agents.define.definition import define
from flux.agents.history.plan import TOOLS
from flux.errors import DefinitionInvalid, InterruptDecided, PlanInvalid
from flux.events import ChatResponse, Compacted, ContextFrozen, Entry, Planned, PlanReview, ToolDone
from flux.messages import ToolResult
from flux.models.scripted import Turn
from flux.store.database import LOCAL
from flux.testing import Call, Reply, ScriptedModel
from flux.tools.function import tool_of
from tests.integration.agents.tools import Bench
from tests.integration.agents.world import World, of, opened, outcomes

STEPS = [{"name": "look"}, {"name": "build", "depends_on": ["look"]}]
MAKE = Call("create_plan", {"steps": STEPS})
START = Call("start_step", {"step": "look"})
DONE = Call("mark_step_done", {"step": "look", "result": "seen"})


#: What the model of `reviewed` says; a test may say more.
SCRIPT: list[Turn] = []


@pytest.fixture
async def world(tmp_path: Path, bench: Bench, database_url: str) -> AsyncIterator[World]:
    async with opened(tmp_path, bench.tools(), database_url=database_url) as world:
        yield world


def states(steps: tuple[dict[str, Any], ...]) -> list[tuple[str, str]]:
    return [(step["name"], step["state"]) for step in steps]


async def reviewed(world: World, *calls: Call, **fields: Any) -> PlanReview:
    """A session whose plan waits for its review."""
    SCRIPT[:] = [Reply("", calls=calls), Reply("ok")]
    await world.agent(SCRIPT, planning=True, approve_plan=True, **fields)
    await world.start("go")
    assert await world.rest() == "waiting"
    assert (await world.row()).waiting_for == "plan"
    (asked,) = of(await world.log(), PlanReview)
    return asked


@pytest.mark.behaviour("plans:wave:sees-itself")
async def test_calls_of_one_wave_see_each_others_changes(world: World) -> None:
    failing = Call("mark_step_failed", {"step": "build", "reason": "no wood"})
    wave = (MAKE, Call("get_ready_steps"), START, DONE, Call("get_plan"), Call("get_ready_steps"), failing)
    await world.agent([Reply("", calls=wave), Reply("ok")], planning=True)
    log = await world.ask("go")
    said = [message.content for message in world.model.requests[-1].messages if isinstance(message, ToolResult)]
    assert said == [
        "The plan is made. Ready to start: 'look'.",
        "Ready to start: 'look'.",
        "Step 'look' is running. No further step can start before this is done: look.",
        "Step 'look' is done. Ready to start: 'build'.",
        "1. [done] look\n   done: seen\n2. [pending] build (after look)",
        "Ready to start: 'build'.",
        "Step 'build' has failed. Nothing is left to do; failed: build.",
    ]
    plans = of(log, Planned)
    assert [states(plan.steps)[0][1] for plan in plans] == ["pending", "running", "done", "done"]
    assert {plan.digest for plan in plans} == {plans[0].digest}
    # Each stands in the log right in front of the result that tells of it.
    order = ["P" if isinstance(entry, Planned) else "d" for entry in log if isinstance(entry, Planned | ToolDone)]
    assert "".join(order) == "PddPdPdddPd"
    assert await world.faults() == []


@pytest.mark.behaviour("plans:wave:refused")
async def test_what_makes_no_sense_is_a_failure_that_changes_nothing(world: World) -> None:
    circle = Call("create_plan", {"steps": [{"name": "a", "depends_on": ["a"]}]})
    many = Call("create_plan", {"steps": [{"name": str(n)} for n in range(4)]})
    wave = (START, Call("get_plan"), circle, many, MAKE, DONE, Call("start_step", {"step": "bild"}))
    await world.agent([Reply("", calls=wave), Reply("ok")], planning=True, max_plan_steps=3)
    log = await world.ask("go")
    assert [done.content for done in of(log, ToolDone)] == [
        "There is no plan; create_plan makes one.",
        "There is no plan; create_plan makes one.",
        "these steps wait for each other: a -> a",
        "a plan may have 3 steps that are not done yet, this one has 4",
        "The plan is made. Ready to start: 'look'.",
        "Step 'look' is done. Ready to start: 'build'.",
        "unknown step 'bild'; did you mean 'build'?",
    ]
    assert [done.status for done in of(log, ToolDone)].count("error") == 4
    assert len(of(log, Planned)) == 2


@pytest.mark.behaviour("plans:kept")
async def test_a_plan_survives_turns_restarts_and_compaction(tmp_path: Path, database_url: str) -> None:
    script = [Reply("", calls=(MAKE, START, DONE)), Reply("started"), Reply("more"), Reply("and more")]
    fields: dict[str, Any] = {"planning": True, "compaction": {"reserve_tokens": 200, "keep_recent_tokens": 10}}
    async with opened(tmp_path, database_url=database_url) as world:
        await world.agent(script, **fields)
        first = of(await world.ask("go"), ContextFrozen)
        assert len(first) == 1
        assert "The plan as it was here" not in first[0].system
        id, model = world.id, world.model
    async with opened(tmp_path, database_url=database_url) as world:
        world.models["main"], world.id = model, id
        script[2:] = [Reply("", calls=(Call("start_step", {"step": "build"}), Call("get_plan"))), Reply("building")]
        log = await world.ask("go on")
        assert of(log, ToolDone)[-1].content.endswith("2. [running] build (after look)")
    async with opened(tmp_path, database_url=database_url) as world:
        world.models["main"] = ScriptedModel([Reply("summary or answer")], context=400)
        world.id = id
        log = await world.ask("words " * 100)
        assert len(of(log, Compacted)) == 1
        system = of(log, ContextFrozen)[-1].system
        assert system.endswith(
            "The plan as it was here:\n\n1. [done] look\n   done: seen\n2. [running] build (after look)"
        )
    async with opened(tmp_path, database_url=database_url) as world:
        world.models["main"] = ScriptedModel(lambda request: next(answers))
        world.id = id
        answers = iter([Reply("", calls=(Call("get_plan"),)), Reply("so it is")])
        log = await world.ask("and?")
        assert of(log, ToolDone)[-1].content.endswith("2. [running] build (after look)")
        assert await world.faults() == []


@pytest.mark.behaviour("plans:review:asked")
async def test_no_step_starts_before_a_person_has_approved_the_plan(world: World) -> None:
    asked = await reviewed(world, MAKE, START, Call("get_plan"), MAKE)
    assert states(asked.steps) == [("look", "pending"), ("build", "pending")]
    log = await world.log()
    assert of(log, Planned) == []
    refused = "the plan waits for a person's review; no step can change before that is decided"
    assert [done.content for done in of(log, ToolDone)] == [
        refused,
        "There is no plan; create_plan makes one.",
        refused,
    ]
    (question,) = await world.questions()
    assert (question.kind, question.digest) == ("plan", asked.digest)
    await world.answer(question, "approve")
    await world.rest("idle")
    log = await world.log()
    (plan,) = of(log, Planned)
    assert (plan.steps, plan.digest) == (asked.steps, asked.digest)
    assert of(log, ToolDone)[-1].content == "The plan is approved. Ready to start: 'look'."
    with pytest.raises(InterruptDecided):
        await world.answer(question, "reject")
    assert await world.faults() == []


@pytest.mark.behaviour("plans:review:rejected")
async def test_a_rejected_plan_is_none_and_the_model_reads_why(world: World) -> None:
    await reviewed(world, MAKE)
    (question,) = await world.questions()
    await world.answer(question, "reject", reason="too short")
    await world.rest("idle")
    log = await world.log()
    assert of(log, Planned) == []
    assert outcomes(log) == [("create_plan", "denied")]
    assert world.prompts()[-1][-1] == "create_plan: [rejected by a person: too short]"
    assert await world.faults() == []


@pytest.mark.behaviour("plans:review:edited")
async def test_an_edited_plan_takes_the_place_of_the_reviewed_one(world: World) -> None:
    asked = await reviewed(world, MAKE, max_plan_steps=3)
    (question,) = await world.questions()
    wrong: list[Any] = [{"steps": []}, {"steps": [{"name": str(n)} for n in range(4)]}, "yes", {"plan": []}]
    for content in wrong:
        with pytest.raises(PlanInvalid):
            await world.answer(question, "approve", content=content)
    assert len(await world.questions()) == 1
    steps = [*asked.steps, {"name": "paint", "depends_on": ["build"]}]
    await world.answer(question, "approve", content={"steps": steps})
    await world.rest("idle")
    log = await world.log()
    (plan,) = of(log, Planned)
    assert states(plan.steps) == [("look", "pending"), ("build", "pending"), ("paint", "pending")]
    assert plan.digest != asked.digest
    told = [message for message in world.model.requests[-1].messages if isinstance(message, ToolResult)]
    assert told[0].content.startswith("The plan is approved with changes. Ready to start: 'look'.\n\n1. [pending] look")
    assert "3. [pending] paint (after build)" in told[0].content


@pytest.mark.behaviour("plans:review:asked")
async def test_where_every_call_is_asked_about_the_plan_is_reviewed_after_its_call(world: World) -> None:
    await world.agent([Reply("", calls=(MAKE,)), Reply("ok")], planning=True, approve_plan=True, approval_mode="always")
    await world.start("go")
    for kind in ("approval", "plan"):
        await world.rest("waiting")
        (question,) = await world.questions()
        assert question.kind == kind
        await world.answer(question, "approve")
    await world.rest("idle")
    assert len(of(await world.log(), Planned)) == 1
    assert await world.faults() == []


@pytest.mark.behaviour("plans:review:again")
async def test_a_new_plan_is_reviewed_with_what_is_finished_and_a_stop_forgets_the_question(world: World) -> None:
    await reviewed(world, MAKE)
    (question,) = await world.questions()
    await world.answer(question, "approve")
    await world.rest("idle")
    SCRIPT.append(Reply("", calls=(DONE, Call("create_plan", {"steps": [{"name": "rent"}]}))))
    await world.ask("rather")
    (question,) = await world.questions()
    asked = of(await world.log(), PlanReview)[-1]
    assert states(asked.steps) == [("look", "done"), ("rent", "pending")]
    await world.cancel()
    await world.rest("idle")
    assert await world.questions() == []
    SCRIPT.extend((Reply("", calls=(Call("get_plan"),)), Reply("ok")))
    log = await world.ask("so?")
    assert of(log, ToolDone)[-1].content.endswith("2. [pending] build (after look)")
    assert isinstance(log[-1], ChatResponse)
    assert await world.faults() == []


@pytest.mark.behaviour("plans:offered")
@pytest.mark.parametrize(
    ("fields", "offered"),
    [({}, False), ({"planning": True}, True), ({"planning": True, "approval_mode": "never"}, False)],
)
async def test_only_an_agent_that_plans_has_the_tools(tmp_path: Path, fields: dict[str, Any], offered: bool) -> None:
    async with opened(tmp_path) as world:
        await world.agent([Reply("ok")], **fields)
        await world.ask("go")
        (request,) = world.model.requests
        assert {tool.name for tool in request.tools} == (set(TOOLS) if offered else set())
        assert ("# Planning" in request.system) == offered


@pytest.mark.behaviour("plans:offered")
async def test_a_name_that_planning_needs_is_refused_and_its_tools_may_be_asked_about(tmp_path: Path) -> None:
    async def get_plan() -> str:
        """Something else."""
        return ""

    async with opened(tmp_path, {"get_plan": tool_of(get_plan)}) as world:
        with pytest.raises(DefinitionInvalid, match="get_plan is also a tool of its planning"):
            await world.agent([Reply("ok")], tools=["get_plan"], planning=True)
        with pytest.raises(DefinitionInvalid, match="approve_plan needs planning: true"):
            await world.agent([Reply("ok")], approve_plan=True)
        await world.agent([Reply("", calls=(MAKE,)), Reply("ok")], planning=True, tool_approvals={"create_plan": True})
        await world.start("go")
        assert await world.rest() == "waiting"
        (question,) = await world.questions()
        assert question.kind == "approval"
        await world.answer(question, "approve")
        assert await world.rest("idle")
        assert len(of(await world.log(), Planned)) == 1


@pytest.mark.behaviour("plans:review:sub-agent")
async def test_the_plan_of_a_sub_agent_is_reviewed_at_the_root(world: World) -> None:
    fields = {"name": "helper", "model": "test/helper", "description": "plans", "planning": True, "approve_plan": True}
    world.models["helper"] = ScriptedModel([Reply("", calls=(MAKE,)), Reply("planned")])
    await world.process.agents.put(LOCAL, define(fields | {"max_plan_steps": 2}), create=True, update=True)
    handed = Call("delegate", {"agent": "helper", "instruction": "dig"})
    await world.agent([Reply("", calls=(handed,)), Reply("done")], agents=["helper"])
    await world.start("go")
    assert await world.rest() == "waiting"
    assert (await world.row()).waiting_for == "plan"
    (asked,) = of(await world.log(), PlanReview)
    assert asked.session is not None
    (question,) = await world.questions()
    with pytest.raises(PlanInvalid, match="a plan may have 2 steps"):
        await world.answer(question, "approve", content={"steps": [{"name": name} for name in "abc"]})
    await world.answer(question, "approve", content={"steps": [{"name": "dig"}]})
    await world.rest("idle")
    rows = await world.process.sessions.entries(LOCAL, asked.session, 0, 1000)
    plans = of([entry for row in rows if isinstance(entry := row.stored().entry, Entry)], Planned)
    assert [states(plan.steps) for plan in plans] == [[("dig", "pending")]]
    assert of(await world.log(), Planned) == []
    assert await world.faults() == []
