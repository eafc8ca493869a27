"""Budgets are reserved before a model is called, shared by all sessions of an agent, and may be raised."""

import asyncio
from pathlib import Path

import pytest

from flux.agents.define.definition import define
from flux.engine.intake.inputs import NewMessage
from flux.events import ChatResponse, RunFailed
from flux.messages import Usage
from flux.models.base import ModelRequest
from flux.store.database import LOCAL, one
from flux.testing import Reply, ScriptedModel
from tests.integration.agents.world import World, of, opened


async def change(world: World, **fields: object) -> None:
    """A newer version of the agent."""
    await world.process.agents.put(
        LOCAL, define({"name": "agent", "model": "test/main", **fields}), create=False, update=True
    )


@pytest.mark.behaviour("budgets:ends:typed")
async def test_a_used_up_budget_is_told_by_a_word_and_a_raised_one_lets_the_session_go_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.agent(lambda request: Reply("ok", usage=Usage(60, 0)), budget={"session": {"max_tokens": 150}})
        await world.ask("one")
        await world.ask("two")
        log = await world.ask("three")
        (failed,) = of(log, RunFailed)
        assert (failed.reason, failed.retryable) == ("budget", False)
        assert failed.message.startswith("the next model call does not fit: the session's budget of 150 tokens")
        assert len(world.model.requests) == 2
        await change(world, budget={"session": {"max_tokens": 2_000}})
        log = await world.ask("four")
        assert len(of(log, ChatResponse)) == 3
        await change(world)
        log = await world.ask("five")
        assert len(of(log, ChatResponse)) == 4
        assert await world.faults() == []


@pytest.mark.behaviour("budgets:reserved:call")
async def test_an_answer_may_be_no_longer_than_the_budget_has_left(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.agent(lambda request: Reply("ok", usage=Usage(700, 0)), budget={"run": {"max_tokens": 1_000}})
        await world.ask("hello")
        await world.ask("hello")
        assert [request.max_tokens for request in world.model.requests] == [512, 256]


@pytest.mark.behaviour("budgets:reserved:call")
async def test_a_prompt_that_does_not_fit_is_not_sent(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.agent(lambda request: Reply("ok"), budget={"run": {"max_tokens": 1_000}})
        log = await world.ask("x" * 8_000)
        (failed,) = of(log, RunFailed)
        assert failed.message.startswith("the next model call does not fit: the run's budget of 1,000 tokens")
        assert world.model.requests == []
        assert await world.faults() == []


@pytest.mark.behaviour("budgets:agent:shared")
async def test_all_sessions_of_an_agent_spend_from_its_budget(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.agent(lambda request: Reply("ok", usage=Usage(600, 0)), budget={"agent": {"max_tokens": 1_000}})
        await world.ask("one")
        world.id = ""
        await world.ask("two")
        world.id = ""
        log = await world.ask("three")
        (failed,) = of(log, RunFailed)
        assert (failed.reason, failed.message) == ("budget", "the agent's budget of 1,000 tokens is used up (1,200)")
        await change(world, budget={"agent": {"max_tokens": 5_000}})
        assert len(of(await world.ask("four"), ChatResponse)) == 1
        assert await world.process.database.read(one("select tokens from spendings")) == [(1_800,)]


@pytest.mark.behaviour("budgets:agent:shared")
async def test_a_call_under_way_has_reserved_what_it_may_spend(tmp_path: Path) -> None:
    """Two sessions that begin at once do not both spend what is left."""
    begun, go = asyncio.Event(), asyncio.Event()

    class Held(ScriptedModel):
        async def stream(self, request: ModelRequest):  # type: ignore[no-untyped-def]
            begun.set()
            await go.wait()
            async for event in super().stream(request):
                yield event

    async with opened(tmp_path) as world:
        await world.agent(
            Held(lambda request: Reply("ok", usage=Usage(10, 0))), budget={"agent": {"max_tokens": 4_105}}
        )
        first = await world.start("one")
        await asyncio.wait_for(begun.wait(), 20)
        second = (await world.process.sessions.start(LOCAL, "agent", NewMessage("two"))).id
        world.id = second
        await world.until_entry(RunFailed)
        assert of(await world.log(), RunFailed)[0].reason == "budget"
        go.set()
        world.id = first
        await world.rest("idle")
        assert len(of(await world.log(), ChatResponse)) == 1
        assert await world.process.database.read(one("select * from reservations")) == []
