"""What children spend, leave behind and show, as a table of cases."""

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest

from flux.deltas import decode_delta
from flux.errors import SessionNotFound
from flux.events import ApprovalRequired, Cancelled, RunFailed, RunStarted, SubagentChanged, UserSaid
from flux.messages import Usage
from flux.models.scripted import Call, Reply, Turn
from flux.store.database import LOCAL, one
from flux.store.interrupts import payload_of
from flux.testing import ScriptedModel
from tests.integration.agents.test_delegation import HELPER, ask, child_log, family
from tests.integration.agents.tools import Bench
from tests.integration.agents.world import Committed, World, of, opened, outcomes
from tests.integration.store.raw import run


@pytest.mark.behaviour("agents:child:usage-stopped")
@pytest.mark.parametrize("waiting", [False, True])
async def test_what_a_stopped_sub_agent_has_used_is_counted_once(world: World, bench: Bench, waiting: bool) -> None:
    tool = "wipe" if waiting else "hold"
    child = [Reply("", calls=(Call(tool),), usage=Usage(90, 9)), Reply("never")]
    parent: list[Turn] = [Reply("", calls=(ask(),), usage=Usage(5, 5)), Reply("fresh", usage=Usage(1, 1))]
    await family(world, parent, child, tools=[tool])
    await world.start("go")
    if waiting:
        await world.rest("waiting")
    else:
        await bench.begun.wait()
    await world.cancel()
    await world.rest("idle")
    assert (await world.row()).spent.tokens == Usage(95, 14)
    assert of(await world.log(), SubagentChanged)[-1].status == "cancelled"
    assert len(of(await child_log(world), Cancelled)) == 1
    await world.ask("again")
    assert (await world.row()).spent.tokens == Usage(96, 15)
    assert await world.faults() == []


@pytest.mark.behaviour("agents:child:budget-after-rest")
async def test_what_a_sub_agent_spent_before_it_rested_counts_against_the_budget_after(
    world: World, bench: Bench
) -> None:
    child = [
        Reply("", calls=(Call("wipe"),), usage=Usage(30, 0)),
        Reply("", calls=(Call("look"),), usage=Usage(90, 0)),
        Reply("never", usage=Usage(1, 1)),
    ]
    world.models["helper"] = ScriptedModel(child)
    helper = {**HELPER, "tools": ["wipe", "look"]}
    parent = [Reply("", calls=(ask(),), usage=Usage(0, 1))]
    await world.agent(parent, subagents=[helper], budget={"run": {"max_tokens": 100}})
    await world.start("go")
    await world.rest("waiting")
    (question,) = await world.questions()
    await world.answer(question, "approve")
    await world.rest("idle")
    assert len(world.models["helper"].requests) == 2
    (failed,) = of(await world.log(), RunFailed)
    assert "budget of 100 tokens" in failed.message
    assert (await world.row()).spent.tokens == Usage(120, 1)


@pytest.mark.behaviour("agents:child:budget-below")
async def test_what_is_spent_two_levels_down_counts_against_the_budget_at_once(world: World, bench: Bench) -> None:
    looking = [Reply("", calls=(Call("look", {"n": n}),), usage=Usage(90 if n else 30, 0)) for n in range(5)]
    world.models["low"] = ScriptedModel([*looking, Reply("never")])
    delegate = Call("delegate", {"agent": "low", "instruction": "x"})
    world.models["helper"] = ScriptedModel([Reply("", calls=(delegate,), usage=Usage(0, 1)), Reply("middle")])
    low = {"name": "low", "model": "test/low", "description": "digs", "tools": ["look"]}
    await world.agent(
        [Reply("", calls=(ask(),), usage=Usage(0, 1))],
        subagents=[{**HELPER, "subagents": [low]}],
        budget={"run": {"max_tokens": 100}},
    )
    log = await world.ask("go")
    assert len(world.models["low"].requests) == 2
    assert "budget of 100 tokens" in of(log, RunFailed)[0].message
    assert (await world.row()).spent.tokens == Usage(120, 2)


@pytest.mark.behaviour("agents:child:deleted")
async def test_a_deleted_session_takes_its_children_with_it(world: World) -> None:
    child = [Reply("", calls=(Call("wipe"),)), Reply("wiped")]
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], child, tools=["wipe"])
    await world.start("go")
    await world.rest("waiting")
    (question,) = await world.questions()
    await world.answer(question, "approve", always=True)
    await world.rest("idle")
    children = {changed.child for changed in of(await world.log(), SubagentChanged)}
    await world.process.sessions.end(LOCAL, world.id)
    await world.process.sessions.delete(LOCAL, world.id)
    for table, column in (
        ("executions", "id"),
        ("events", "execution_id"),
        ("interrupts", "execution_id"),
        ("grants", "execution_id"),
    ):
        rows = await world.process.database.read(one(f"select {column} from {table}"))
        assert rows == [], table
    for child_id in children:
        with pytest.raises(SessionNotFound):
            await world.process.sessions.get(LOCAL, child_id)


@pytest.mark.behaviour("agents:child:not-deleted-alone")
async def test_a_child_is_not_deleted_without_its_root(world: World) -> None:
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], [Reply("gold")])
    root = await world.start("go")
    await world.rest("idle")
    child = of(await world.log(), SubagentChanged)[0].child
    await world.process.sessions.end(LOCAL, root)
    with pytest.raises(Exception, match=root):
        await world.process.sessions.delete(LOCAL, child)
    assert (await world.process.sessions.get(LOCAL, child)).root == root


@pytest.mark.behaviour("agents:child:listed")
async def test_children_are_not_listed_and_can_be_looked_at(world: World) -> None:
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], [Reply("gold")])
    await world.start("go")
    await world.rest("idle")
    child = of(await world.log(), SubagentChanged)[0].child
    assert [row.id for row in await world.process.sessions.page(LOCAL)] == [world.id]
    assert (await world.process.sessions.get(LOCAL, child)).driver == world.id


@pytest.mark.behaviour("agents:child:granted")
async def test_always_holds_for_the_session_of_the_sub_agent_that_asked(world: World, bench: Bench) -> None:
    child = [Reply("", calls=(Call("wipe", {"n": 1}),)), Reply("", calls=(Call("wipe", {"n": 2}),)), Reply("wiped")]
    parent = [Reply("", calls=(ask(), Call("wipe", {"n": 3}))), Reply("done")]
    world.models["helper"] = ScriptedModel(child)
    await world.agent(parent, subagents=[{**HELPER, "tools": ["wipe"]}], tools=["wipe"])
    await world.start("go")
    await world.rest("waiting")
    asked = {payload_of(one)["args"]["n"]: one for one in await world.questions()}
    assert sorted(asked) == [1, 3]
    await world.answer(asked[1], "approve", always=True)
    await world.until_entry(SubagentChanged, 3)
    assert await world.rest("waiting") == "waiting"
    assert bench.done == ["wipe 1", "wipe 2"]
    assert [payload_of(one)["args"]["n"] for one in await world.questions()] == [3]
    await world.answer(asked[3], "reject")
    await world.rest("idle")
    assert outcomes(await world.log()) == [("delegate", "success"), ("wipe", "denied")]


@pytest.mark.behaviour("agents:child:in-flight")
@pytest.mark.parametrize("through", ["root", "middle", "asker"])
async def test_a_question_asked_in_flight_three_levels_down_is_answered_through_anybody(
    world: World, through: str
) -> None:
    world.models["low"] = ScriptedModel([Reply("", calls=(Call("confirm", {"patience": 20}),)), Reply("sure")])
    delegate = Call("delegate", {"agent": "low", "instruction": "x"})
    world.models["helper"] = ScriptedModel([Reply("", calls=(delegate,)), Reply("middle")])
    low = {"name": "low", "model": "test/low", "description": "digs", "tools": ["confirm"]}
    await world.agent([Reply("", calls=(ask(),)), Reply("done")], subagents=[{**HELPER, "subagents": [low]}])
    root = await world.start("go")

    async def asked() -> bool:
        return bool(await world.questions())

    await world.until(asked)
    (question,) = await world.questions()
    rows = await world.process.database.read(one("select id from executions where driver = :root", root=root))
    world.id = {"root": root, "middle": rows[0][0], "asker": question.execution_id}[through]
    await world.answer(question, "answer", content="yes")
    world.id = root
    await world.rest("idle")
    assert world.prompts("low")[-1][-1] == "confirm: yes, asked 0 times before"
    assert await world.faults() == []


@pytest.mark.behaviour("agents:child:patience")
async def test_a_question_in_flight_that_nobody_answers_in_time_puts_all_to_rest(world: World) -> None:
    child = [Reply("", calls=(Call("confirm", {"patience": 0.05}),)), Reply("sure")]
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], child, tools=["confirm"])
    await world.start("go")
    assert await world.rest("waiting") == "waiting"
    (question,) = await world.questions()
    await world.answer(question, "answer", content="yes")
    await world.rest("idle")
    assert world.prompts("helper")[-1][-1] == "confirm: yes, asked 1 times before"
    assert await world.faults() == []


@pytest.mark.behaviour("agents:child:feed")
async def test_readers_of_the_root_and_of_the_child_see_what_it_says(world: World) -> None:
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], [Reply("gold and silver")])
    await world.start()
    feed = world.process.feed
    seen: list[Any] = []

    async def reading() -> None:
        async for batch in feed.follow(LOCAL, world.id):
            seen.extend(batch)

    reader = asyncio.create_task(reading())
    await world.say("go")
    await world.rest("idle")
    await world.until(lambda: _seen(seen))
    reader.cancel()
    await asyncio.wait((reader,))
    deltas = [decode_delta(frame.data) for frame in seen if frame.type == "subagent_delta"]
    assert "".join(delta.event.text for delta in deltas) == "gold and silver"  # type: ignore[union-attr]
    assert feed._channels == {}


async def _seen(seen: list[Any]) -> bool:
    return any(frame.type == "chat_response" for frame in seen)


@pytest.mark.behaviour("agents:child:questions-closed")
async def test_the_questions_below_are_closed_when_the_run_is_stopped(world: World) -> None:
    world.models["low"] = ScriptedModel([Reply("", calls=(Call("wipe"),)), Reply("wiped")])
    delegate = Call("delegate", {"agent": "low", "instruction": "x"})
    world.models["helper"] = ScriptedModel([Reply("", calls=(delegate,)), Reply("middle")])
    low = {"name": "low", "model": "test/low", "description": "digs", "tools": ["wipe"]}
    await world.agent([Reply("", calls=(ask(),)), Reply("done")], subagents=[{**HELPER, "subagents": [low]}])
    await world.start("go")
    await world.rest("waiting")
    assert len(of(await world.log(), ApprovalRequired)) == 1
    await world.cancel()
    await world.rest("idle")
    rows = await world.process.database.read(one("select run_id, state from executions where driver is not null"))
    assert rows == [(None, "idle"), (None, "idle")]
    assert await world.faults() == []


@pytest.mark.behaviour("agents:child:cancel-unstarted")
async def test_a_child_stopped_before_its_first_step_has_a_run_that_was_cancelled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], [Reply("never")])
    database = world.process.database
    write, cancelled = database.write, asyncio.Event()

    async def writing(program: Any) -> Any:
        wrote = await write(program)
        if program.gi_code.co_name == "drive" and not cancelled.is_set():
            cancelled.set()
            await world.cancel()
            await asyncio.Event().wait()  # until whoever drives is stopped
        return wrote

    monkeypatch.setattr(database, "write", writing)
    await world.start("go")
    await asyncio.wait_for(cancelled.wait(), 20)
    await world.rest("idle")
    log = await child_log(world)
    assert [len(of(log, kind)) for kind in (UserSaid, RunStarted, Cancelled, RunFailed)] == [1, 1, 1, 0]
    assert outcomes(await world.log()) == [("delegate", "cancelled")]
    assert world.models["helper"].requests == []
    assert await world.faults() == []


@pytest.mark.behaviour("agents:child:drained")
async def test_a_process_that_leaves_while_a_sub_agent_works_hands_over(tmp_path: Path) -> None:
    bench, committed = Bench(), Committed()
    parent: list[Turn] = [Reply("", calls=(ask(),)), Reply("done")]
    child: list[Turn] = [Reply("", calls=(Call("hold_read"),)), Reply("held")]
    async with opened(tmp_path, bench.tools(), committed=committed, grace=0.1) as before:
        await family(before, parent, child, tools=["hold_read"])
        id = await before.start("go")
        await bench.begun.wait()
        url = before.process.settings.database
    bench.go.set()
    row = run(url, "select state, failures, last_error from executions where driver is null")
    assert row == [("scheduled", 0, None)]
    async with opened(tmp_path, bench.tools(), committed=committed) as world:
        world.id = id
        world.models.update(main=ScriptedModel(parent), helper=ScriptedModel(child))
        await world.rest("idle")
        log = await child_log(world)
        assert outcomes(log) == [("hold_read", "success")]
        assert len(of(log, Cancelled)) == 0
        assert outcomes(await world.log()) == [("delegate", "success")]
        assert await world.faults() == []


@pytest.mark.behaviour("agents:child:own-budget")
async def test_a_sub_agent_that_uses_up_a_budget_of_its_own_is_a_failed_call(world: World) -> None:
    child = [Reply("", calls=(Call("look"),), usage=Usage(60, 0)), Reply("never")]
    helper = {**HELPER, "tools": ["look"], "budget": {"run": {"max_tokens": 50}}}
    world.models["helper"] = ScriptedModel(child)
    await world.agent([Reply("", calls=(ask(),)), Reply("so be it")], subagents=[helper])
    log = await world.ask("go")
    assert outcomes(log) == [("delegate", "error")]
    assert "budget of 50 tokens" in world.prompts()[-1][-1]
    assert len(of(log, RunFailed)) == 0
    assert await world.faults() == []


@pytest.mark.behaviour("agents:child:ended-outside")
async def test_a_session_that_is_ended_while_its_sub_agent_works_stops_the_work(world: World, bench: Bench) -> None:
    child = [Reply("", calls=(Call("hold"),)), Reply("held")]
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], child, tools=["hold"])
    await world.start("go")
    await bench.begun.wait()
    await world.process.sessions.end(LOCAL, world.id)
    async with asyncio.timeout(20):
        while bench.cancelled != ["hold 0"]:
            await anyio.lowlevel.checkpoint()
    rows = await world.process.database.read(one("select state, outcome, run_id from executions"))
    assert rows == [("ended", "cancelled", None)] * 2
    assert len(of(await child_log(world), Cancelled)) == 1
    assert outcomes(await child_log(world)) == []


@pytest.mark.behaviour("agents:child:agent-deleted")
async def test_a_sub_agent_whose_agent_was_deleted_meanwhile_goes_on(world: World, bench: Bench) -> None:
    child = [Reply("", calls=(Call("wipe"),)), Reply("wiped")]
    await family(world, [Reply("", calls=(ask(),)), Reply("done")], child, tools=["wipe"])
    await world.start("go")
    await world.rest("waiting")
    await world.process.agents.delete(LOCAL, "helper")
    (question,) = await world.questions()
    await world.answer(question, "approve")
    await world.rest("idle")
    assert bench.done == ["wipe 0"]
    assert world.prompts()[-1][-1] == "delegate: wiped"
    assert await world.faults() == []
