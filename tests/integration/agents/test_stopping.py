"""Stopping a run in the middle of anything; the session goes on."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from flux.events import AssistantSaid, Cancelled, CancelRequested, ChatResponse, ToolDone, ToolStarted
from flux.messages import TextDelta
from flux.models.base import ModelEvent, ModelRequest
from flux.testing import Call, Reply, ScriptedModel
from tests.integration.agents.tools import Bench
from tests.integration.agents.world import World, of, outcomes


class Endless(ScriptedModel):
    """Says two words and then nothing more."""

    def __init__(self) -> None:
        super().__init__([Reply("never")])
        self.shown = asyncio.Event()
        self.closed = False

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Stream for ever, the first time."""
        if self.shown.is_set():
            yield TextDelta("")
            async for event in ScriptedModel([Reply("Here I am.")]).stream(request):
                yield event
            return
        yield TextDelta("Let me ")
        yield TextDelta("think")
        self.shown.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.closed = True


@pytest.mark.behaviour("loop:cancel:mid-stream")
async def test_a_run_stopped_in_mid_stream_keeps_the_text_and_the_session(world: World) -> None:
    model = Endless()
    await world.agent(model)
    await world.start("go")
    await asyncio.wait_for(model.shown.wait(), 10)
    await world.say("and this", "steer")
    await world.cancel()
    assert await world.rest() == "idle"
    log = await world.log()
    (said,) = of(log, AssistantSaid)
    assert said.stop == "cancelled"
    assert [getattr(part, "text", "") for part in said.parts] == ["Let me think"]
    assert model.closed
    assert await world.faults() == []
    log = await world.ask("still there?")
    assert [response.content for response in of(log, ChatResponse)] == ["Here I am."]
    assert await world.faults() == []


@pytest.mark.behaviour("loop:stream:off")
async def test_an_answer_that_was_not_shown_is_not_kept_when_it_is_stopped(world: World) -> None:
    model = Endless()
    await world.agent(model, stream=False)
    await world.start("go")
    await asyncio.wait_for(model.shown.wait(), 10)
    await world.cancel()
    assert await world.rest() == "idle"
    assert of(await world.log(), AssistantSaid) == []
    assert model.closed
    log = await world.ask("still there?")
    assert [response.content for response in of(log, ChatResponse)] == ["Here I am."]
    assert await world.faults() == []


@pytest.mark.behaviour("loop:cancel:mid-tool")
async def test_a_run_stopped_in_mid_tool_settles_every_call(world: World, bench: Bench) -> None:
    script = [Reply("", calls=(Call("look"), Call("hold"), Call("pay"))), Reply("fine")]
    await world.agent(script, tools=["look", "hold", "pay"])
    await world.start("go")
    await asyncio.wait_for(bench.begun.wait(), 10)
    await world.cancel()
    assert await world.rest() == "idle"
    log = await world.log()
    assert outcomes(log) == [("look", "success"), ("hold", "cancelled"), ("pay", "cancelled")]
    contents = [done.content for done in of(log, ToolDone)][1:]
    assert "while it ran" in contents[0]
    assert "before it ran" in contents[1]
    assert bench.cancelled == ["hold 0"]
    assert await world.faults() == []
    await world.ask("again")
    assert await world.faults() == []


@pytest.mark.behaviour("loop:cancel:waiting")
async def test_a_run_stopped_while_it_waits_closes_its_questions(world: World) -> None:
    await world.agent([Reply("", calls=(Call("wipe"),)), Reply("fine")], tools=["wipe"])
    await world.start("go")
    assert await world.rest() == "waiting"
    await world.cancel()
    assert await world.rest("idle") == "idle"
    assert outcomes(await world.log()) == [("wipe", "cancelled")]
    assert await world.faults() == []


@pytest.mark.behaviour("loop:cancel:consumes-steers")
async def test_stopping_consumes_the_steers_of_the_run_and_starts_no_other(world: World, bench: Bench) -> None:
    await world.agent([Reply("", calls=(Call("hold"),)), Reply("fine")], tools=["hold"])
    await world.start("go")
    await asyncio.wait_for(bench.begun.wait(), 10)
    await world.say("left", "steer")
    await world.say("right", "steer")
    await world.cancel()
    await world.rest()
    log = await world.log()
    assert len(of(log, Cancelled)[0].inputs) == 2
    assert of(log, ChatResponse) == []
    assert await world.faults() == []
    await world.ask("now")
    assert world.prompts()[-1][-3:] == ["user: left", "user: right", "user: now"]


@pytest.mark.behaviour("loop:cancel:idle")
async def test_stopping_an_idle_session_does_nothing(world: World) -> None:
    await world.agent([Reply("fine")])
    await world.ask("go")
    head = (await world.row()).head
    await world.cancel()
    assert (await world.row()).head == head


@pytest.mark.behaviour("loop:cancel:one-result")
async def test_a_call_that_ends_while_its_run_is_stopped_has_one_result(world: World, bench: Bench) -> None:
    await world.agent([Reply("", calls=(Call("hold"),)), Reply("fine")], tools=["hold"])
    for _ in range(20):
        bench.begun.clear()
        bench.go.clear()
        await world.start("go")
        await asyncio.wait_for(bench.begun.wait(), 10)
        bench.go.set()
        await asyncio.gather(world.cancel(), asyncio.to_thread(bool))
        await world.rest()
        log = await world.log()
        assert len(of(log, ToolStarted)) == len(of(log, ToolDone)) == 1
        assert await world.faults() == []
        assert len(of(log, CancelRequested)) <= 1
