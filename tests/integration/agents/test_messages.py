"""Messages that come while a session works: when each of them is read."""

import asyncio
from contextlib import aclosing

import pytest

from flux.engine.intake.inputs import NewMessage
from flux.errors import SessionBusy, SessionEnded
from flux.events import AssistantSaid, Cancelled, ChatResponse, RunStarted
from flux.messages import text_of
from flux.models.base import ModelRequest
from flux.store.database import LOCAL
from flux.testing import Call, Reply
from tests.integration.agents.tools import Bench
from tests.integration.agents.world import GUARD, World, of

HOLD = Reply("", calls=(Call("hold"),))


def follow_up(request: ModelRequest) -> Reply:
    """Hold once, then say what was said last."""
    if len(request.messages) == 1:
        return HOLD
    return Reply(f"heard {text_of(request.messages[-1].parts)}" if hasattr(request.messages[-1], "parts") else "held")


async def hold(world: World, bench: Bench) -> None:
    """A session in the middle of its first tool call."""
    await world.agent(follow_up, tools=["hold"])
    await world.start("one")
    await asyncio.wait_for(bench.begun.wait(), 10)


@pytest.mark.behaviour("sessions:modes:queue")
async def test_a_queued_message_is_the_next_run(world: World, bench: Bench) -> None:
    await hold(world, bench)
    await world.say("two")
    await world.say("three")
    bench.go.set()
    assert await world.rest() == "idle"
    log = await world.log()
    assert [response.content for response in of(log, ChatResponse)] == ["held", "heard two", "heard three"]
    assert [response.turn for response in of(log, ChatResponse)] == [1, 2, 3]
    assert len(of(log, RunStarted)) == 3
    assert await world.faults() == []


@pytest.mark.behaviour("sessions:modes:steer")
async def test_a_steer_joins_the_next_model_call_of_the_run(world: World, bench: Bench) -> None:
    await hold(world, bench)
    await world.say("mind this", "steer")
    bench.go.set()
    await world.rest()
    log = await world.log()
    assert [response.content for response in of(log, ChatResponse)] == ["heard mind this"]
    assert world.prompts()[-1] == ["user: one", "model:  [hold]", "hold: hold 0 done", "user: mind this"]
    assert await world.faults() == []


@pytest.mark.behaviour("sessions:modes:steer")
async def test_a_steer_to_an_idle_session_starts_a_run(world: World) -> None:
    await world.agent([Reply("hello")])
    await world.start()
    await world.say("hi", "steer")
    await world.rest()
    assert [response.content for response in of(await world.log(), ChatResponse)] == ["hello"]


@pytest.mark.behaviour("sessions:modes:interrupt")
async def test_an_interrupting_message_stops_the_run_and_is_the_next(world: World, bench: Bench) -> None:
    await hold(world, bench)
    await world.say("stop, do this", "interrupt")
    await world.rest()
    log = await world.log()
    assert len(of(log, Cancelled)) == 1
    assert [response.content for response in of(log, ChatResponse)] == ["heard stop, do this"]
    assert bench.cancelled == ["hold 0"]
    assert bench.done == []
    assert await world.faults() == []


@pytest.mark.behaviour("sessions:modes:interrupt")
async def test_an_interrupting_message_wakes_a_session_that_waits(world: World) -> None:
    await world.agent([Reply("", calls=(Call("wipe"),)), Reply("well then")], tools=["wipe"])
    await world.start("wipe it")
    assert await world.rest() == "waiting"
    await world.say("forget it", "interrupt")
    assert await world.rest("idle") == "idle"
    assert [response.content for response in of(await world.log(), ChatResponse)] == ["well then"]
    assert await world.faults() == []


@pytest.mark.behaviour("sessions:modes:interrupt")
async def test_an_interrupting_message_to_an_idle_session_is_an_ordinary_one(world: World) -> None:
    await world.agent([Reply("hello")])
    await world.start()
    await world.say("hi", "interrupt")
    await world.rest()
    assert await world.faults() == []
    assert of(await world.log(), Cancelled) == []


@pytest.mark.behaviour("sessions:modes:reject")
async def test_a_rejecting_message_is_refused_unless_the_session_is_idle(world: World, bench: Bench) -> None:
    await hold(world, bench)
    head = (await world.row()).head
    with pytest.raises(SessionBusy):
        await world.say("now or never", "reject")
    assert (await world.row()).head == head
    bench.go.set()
    await world.rest()
    await world.say("now", "reject")
    await world.rest()
    assert [response.content for response in of(await world.log(), ChatResponse)][-1] == "heard now"


@pytest.mark.behaviour("sessions:modes:no-wake")
@pytest.mark.parametrize("mode", ["queue", "steer"])
async def test_a_message_does_not_wake_a_session_that_waits_for_a_person(world: World, mode: str) -> None:
    await world.agent([Reply("", calls=(Call("wipe"),)), Reply("wiped"), Reply("and more")], tools=["wipe"])
    await world.start("wipe it")
    await world.rest()
    await world.process.sessions.send(LOCAL, world.id, NewMessage("psst", mode))  # type: ignore[arg-type]
    assert (await world.row()).state == "waiting"
    (question,) = await world.questions()
    await world.answer(question, "approve")
    await world.rest("idle")
    assert await world.faults() == []
    assert len(of(await world.log(), ChatResponse)) == (2 if mode == "queue" else 1)


@pytest.mark.behaviour("sessions:end:pending")
async def test_an_ended_session_drops_what_runs_and_takes_no_more(world: World, bench: Bench) -> None:
    await hold(world, bench)
    await world.say("two")
    await world.process.sessions.end(LOCAL, world.id)
    assert await world.rest("ended") == "ended"
    with pytest.raises(SessionEnded):
        await world.say("three")
    assert len(of(await world.log(), Cancelled)) == 1
    assert of(await world.log(), ChatResponse) == []


async def read_run(world: World) -> list[str]:
    """The types of all events of the session up to its first answer, as a reader who is there gets them."""
    seen: list[str] = []
    async with asyncio.timeout(GUARD), aclosing(world.process.sessions.follow(LOCAL, world.id)) as batches:
        async for batch in batches:
            seen += [frame.type for frame in batch]
            if "session_started" in seen and "user_message" not in seen:
                await world.say("hi")
            if "chat_response" in seen:
                break
    return seen


@pytest.mark.behaviour("loop:stream:off")
@pytest.mark.parametrize("stream", [True, False])
async def test_without_stream_only_the_finished_answer_is_shown(world: World, stream: bool) -> None:
    await world.agent([Reply("hello there", reasoning="a greeting")], stream=stream)
    await world.start()
    seen = await read_run(world)
    assert ({"token", "reasoning"} <= set(seen), "token" in seen, "reasoning" in seen) == (stream, stream, stream)
    assert "assistant_message" in seen
    (said,) = of(await world.log(), AssistantSaid)
    assert text_of(said.parts) == "hello there"
