"""Streams of operations: what happens, as it happens."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from flux import define_tool, init_agent
from flux.agents.code.errors import AbortError
from flux.agents.code.types import PromptResponse
from flux.errors import AgentFailed, SessionBusy
from flux.events import ChatResponse, Token, ToolDone, ToolStarted, UserSaid
from flux.messages import ModelFailure
from flux.testing import Call, Reply
from tests.integration.harness.conftest import MakeAgent
from tests.integration.harness.test_sessions import GUARD, Gate, texts


@pytest.mark.behaviour("harness:session:stream")
async def test_a_stream_shows_words_and_tools_and_ends_with_the_answer(desk: MakeAgent) -> None:
    look = define_tool("look", lambda args: "seen", description="d", parameters={})
    agent = desk([Reply("", calls=(Call("look"),)), Reply("All is well.")], tools=[look])
    session = await (await init_agent(agent, id="t-1")).session()
    events: list[Any] = [event async for event in session.stream("Look")]
    kinds = [type(event) for event in events]
    order = [UserSaid, ToolStarted, ToolDone, Token, ChatResponse, PromptResponse]
    assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)
    assert "".join(event.text for event in events if isinstance(event, Token)) == "All is well."
    assert events[-1].text == "All is well."


@pytest.mark.behaviour("harness:session:stream")
async def test_a_stream_raises_what_a_prompt_raises(desk: MakeAgent) -> None:
    gate = Gate()
    agent = desk([Reply("", calls=(Call("wait"),)), ModelFailure("gone", "rejected")], tools=[gate.tool()])
    session = await (await init_agent(agent, id="t-1")).session()
    running = session.prompt("Wait")
    await asyncio.wait_for(gate.began.wait(), GUARD)
    with pytest.raises(SessionBusy):
        [event async for event in session.stream("x")]
    gate.open.set()
    with pytest.raises(AgentFailed, match="gone"):
        await running
    with pytest.raises(AgentFailed, match="gone"):
        [event async for event in session.stream("x")]


@pytest.mark.behaviour("harness:session:stream")
async def test_who_stops_reading_stops_the_operation(desk: MakeAgent) -> None:
    gate = Gate()
    session = await (await init_agent(desk([Reply("", calls=(Call("wait"),))], tools=[gate.tool()]), id="1")).session()
    async with aclosing(session.stream("Wait")) as events:
        async for event in events:
            if isinstance(event, ToolStarted):
                await asyncio.wait_for(gate.began.wait(), GUARD)
                break
    assert gate.stopped.is_set()
    assert "cancelled while it ran" in texts(await session.history())[2]
    handle = session.prompt("Wait")
    handle.abort()
    with pytest.raises(AbortError):
        await handle
