"""Calls that need a person: approvals in any order, rejections, grants, and questions of tools."""

import itertools

import pytest

from flux.errors import InterruptDecided, InterruptNotFound, InvalidInput
from flux.events import ApprovalRequired, ChatResponse, InputRequired, ToolDone, ToolStarted
from flux.messages import ToolResult
from flux.store.database import LOCAL, Scope
from flux.testing import Call, Reply
from tests.integration.agents.tools import Bench
from tests.integration.agents.world import World, of, outcomes

THREE = Reply("", calls=(Call("wipe", {"n": 1}), Call("look"), Call("wipe", {"n": 2}), Call("wipe", {"n": 3})))


@pytest.mark.behaviour("gate:approval:any-order")
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_several_approvals_are_asked_at_once_and_answered_in_any_order(
    world: World, bench: Bench, order: tuple[int, ...]
) -> None:
    await world.agent([THREE, Reply("ok")], tools=["wipe", "look"])
    await world.start("go")
    await world.rest()
    assert bench.done == ["look 0"]  # what needs nobody does not wait
    questions = {question.call: question for question in await world.questions()}
    asked = [entry.call for entry in of(await world.log(), ApprovalRequired)]
    assert set(questions) == set(asked)
    for n, index in enumerate(order, 1):
        await world.answer(questions[asked[index]], "approve")
        await world.rest("waiting" if n < 3 else "idle")
    assert sorted(bench.done[1:]) == ["wipe 1", "wipe 2", "wipe 3"]
    results = [m for m in world.model.requests[-1].messages if isinstance(m, ToolResult)]
    assert [result.content for result in results] == ["wipe 1 done", "look 0 done", "wipe 2 done", "wipe 3 done"]
    assert await world.faults() == []


@pytest.mark.behaviour("gate:approval:rejected")
async def test_a_rejection_and_its_reason_reach_the_model(world: World, bench: Bench) -> None:
    await world.agent([Reply("", calls=(Call("wipe"),)), Reply("ok")], tools=["wipe"])
    await world.start("go")
    await world.rest()
    (question,) = await world.questions()
    await world.answer(question, "reject", reason="not on a Friday")
    await world.rest("idle")
    assert bench.done == []
    assert world.prompts()[-1][-1] == "wipe: [rejected by a person: not on a Friday]"
    assert outcomes(await world.log()) == [("wipe", "denied")]
    assert await world.faults() == []


@pytest.mark.behaviour("gate:approval:always")
async def test_always_holds_for_the_tool_in_this_session(world: World, bench: Bench) -> None:
    script = [Reply("", calls=(Call("wipe", {"n": 1}),)), Reply("", calls=(Call("wipe", {"n": 2}),)), Reply("ok")]
    await world.agent(script, tools=["wipe"])
    await world.start("go")
    await world.rest()
    (question,) = await world.questions()
    await world.answer(question, "approve", always=True)
    assert await world.rest() == "idle"
    assert bench.done == ["wipe 1", "wipe 2"]
    await world.start("go")
    assert await world.rest() == "waiting"


@pytest.mark.behaviour("gate:approval:predicate-once")
async def test_a_predicate_is_asked_once_and_may_let_a_call_pass(world: World, bench: Bench) -> None:
    await world.agent([Reply("", calls=(Call("wipe", {"n": 100}),)), Reply("ok")], tools=["wipe"])
    await world.start("go")
    assert await world.rest() == "idle"
    assert bench.done == ["wipe 100"]


@pytest.mark.behaviour("gate:approval:first-answer-wins")
async def test_the_first_answer_wins_and_repeating_it_is_no_error(world: World) -> None:
    await world.agent([Reply("", calls=(Call("wipe"),)), Reply("ok")], tools=["wipe"])
    await world.start("go")
    await world.rest()
    (question,) = await world.questions()
    with pytest.raises(InvalidInput, match="approve or reject"):
        await world.answer(question, "perhaps")
    await world.answer(question, "approve")
    await world.answer(question, "approve")
    with pytest.raises(InterruptDecided):
        await world.answer(question, "reject")
    await world.rest("idle")
    with pytest.raises(InterruptDecided):
        await world.answer(question, "reject")
    with pytest.raises(InterruptNotFound):
        await world.process.sessions.interrupt(LOCAL, world.id, "nothing")


@pytest.mark.behaviour("gate:approval:owner-only")
async def test_nobody_else_may_answer(world: World) -> None:
    await world.agent([Reply("", calls=(Call("wipe"),)), Reply("ok")], tools=["wipe"])
    await world.start("go")
    await world.rest()
    for other in (Scope("default", "mallory"), Scope("evil", "local")):
        with pytest.raises(Exception, match="no session"):
            await world.process.sessions.interrupts(other, world.id)
    assert (await world.row()).state == "waiting"


@pytest.mark.behaviour("sessions:ask-user:round-trip")
async def test_a_question_of_the_model_gets_the_person_s_words(world: World) -> None:
    ask = Call("ask_user", {"question": "Which colour?", "options": ["red", "blue"]})
    await world.agent([Reply("", calls=(ask,)), Reply("ok")], tools=["ask_user"])
    await world.start("go")
    assert await world.rest() == "waiting"
    (entry,) = of(await world.log(), InputRequired)
    assert (entry.question, entry.options) == ("Which colour?", ("red", "blue"))
    (question,) = await world.questions()
    assert question.kind == "input"
    await world.answer(question, "answer", content="green")
    await world.rest("idle")
    assert world.prompts()[-1][-1] == "ask_user: green"
    assert await world.faults() == []


@pytest.mark.behaviour("sessions:ask-user:again")
async def test_a_tool_may_ask_more_than_once(world: World) -> None:
    await world.agent([Reply("", calls=(Call("twice"),)), Reply("ok")], tools=["twice"])
    await world.start("go")
    for content in ("no", "perhaps", "yes"):
        assert await world.rest("waiting") == "waiting"
        (question,) = await world.questions()
        await world.answer(question, "answer", content=content)
    await world.rest("idle")
    log = await world.log()
    assert len({entry.id for entry in of(log, InputRequired)}) == 3
    assert outcomes(log) == [("twice", "success")]
    assert await world.faults() == []


@pytest.mark.behaviour("gate:approval:then-input")
async def test_a_call_that_was_approved_may_still_ask(world: World) -> None:
    await world.agent([Reply("", calls=(Call("twice"),)), Reply("ok")], tools=["twice"], approval_mode="always")
    await world.start("go")
    await world.rest()
    (question,) = await world.questions()
    await world.answer(question, "approve")

    async def asked_again() -> bool:
        return [question.kind for question in await world.questions()] == ["input"]

    await world.until(asked_again)
    (question,) = await world.questions()
    await world.rest("waiting")
    await world.answer(question, "answer", content="yes")
    await world.rest("idle")
    assert len(of(await world.log(), ToolStarted)) == 2
    assert outcomes(await world.log()) == [("twice", "success")]


@pytest.mark.behaviour("gate:approval:always-mode")
async def test_where_everything_is_asked_a_harmless_call_is_too(world: World, bench: Bench) -> None:
    await world.agent([Reply("", calls=(Call("look"),)), Reply("ok")], tools=["look"], approval_mode="always")
    await world.start("go")
    assert await world.rest() == "waiting"
    assert bench.done == []


@pytest.mark.behaviour("loop:tools:prepared")
async def test_calls_that_cannot_run_are_results_the_model_reads(world: World, bench: Bench) -> None:
    calls = (Call("fly"), Call("look", {"m": 1}), Call("look", {"n": "two"}), Call("look", {"n": "3"}))
    await world.agent([Reply("", calls=calls), Reply("ok")], tools=["look"])
    log = await world.ask("go")
    results = [done.content for done in of(log, ToolDone)]
    assert [outcome for _, outcome in outcomes(log)] == ["error", "error", "error", "success"]
    assert "no tool 'fly'" in results[0]
    assert "do not fit look" in results[1]
    assert bench.done == ["look 3"]  # "3" has one clear meaning
    assert len(of(log, ChatResponse)) == 1
    assert await world.faults() == []


@pytest.mark.behaviour("sessions:ask-user:meanwhile")
async def test_a_call_may_wait_for_an_answer_while_it_goes_on(world: World) -> None:
    call = Call("confirm", {"patience": 20.0})
    await world.agent([Reply("", calls=(call,)), Reply("ok")], tools=["confirm"])
    await world.start("go")
    await world.until_entry(InputRequired)
    assert (await world.row()).state == "running"
    (question,) = await world.questions()
    await world.answer(question, "answer", content="yes")
    await world.rest("idle")
    assert world.prompts()[-1][-1] == "confirm: yes, asked 0 times before"
    # It acts again after the answer, and says so first: a crash there must not find it waiting.
    kinds = [type(entry).__name__ for entry in await world.log()]
    assert kinds[kinds.index("InterruptAnswered") :][:3] == ["InterruptAnswered", "ToolStarted", "ToolDone"]
    assert await world.faults() == []


@pytest.mark.behaviour("sessions:ask-user:patience")
async def test_a_question_that_nobody_answers_in_time_stays_open(world: World) -> None:
    call = Call("confirm", {"patience": 0.0})
    await world.agent([Reply("", calls=(call,)), Reply("ok")], tools=["confirm"])
    await world.start("go")
    assert await world.rest() == "waiting"
    assert len(of(await world.log(), InputRequired)) == 1
    (question,) = await world.questions()
    await world.answer(question, "answer", content="yes")
    await world.rest("idle")
    assert world.prompts()[-1][-1] == "confirm: yes, asked 1 times before"
    assert await world.faults() == []
