"""Tools of real MCP servers over each transport, called by an agent."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import pytest

from flux.events import ContextFrozen, ToolDone
from flux.testing import Call, Reply
from tests.integration.agents.world import World, of, opened
from tests.integration.tools import mcp_server

PROGRAM = [sys.executable, mcp_server.__file__]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with opened(tmp_path) as world:
        yield world


@pytest.fixture(params=["http", "sse", "stdio"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[dict[str, Any]]:
    """The same server over each transport."""
    way: Literal["http", "sse", "stdio"] = request.param
    if way == "stdio":
        yield {"command": PROGRAM, "name": "bench"}
        return
    async with AsyncExitStack() as stack:
        yield {"url": await stack.enter_async_context(mcp_server.serving(mcp_server.build(), way)), "name": "bench"}


@pytest.mark.behaviour("mcp:transports:call")
async def test_an_agent_calls_a_tool_over_every_transport(world: World, server: dict[str, Any]) -> None:
    await world.agent([Reply(calls=(Call("mcp__bench__add", {"a": 2, "b": 3}),)), Reply("ok")], mcp_servers=[server])
    log = await world.ask("go")
    assert [done.content for done in of(log, ToolDone)] == ["5"]
    (context,) = of(log, ContextFrozen)
    (add,) = [tool for tool in context.tools if tool["name"] == "mcp__bench__add"]
    assert add["description"] == "Add two numbers."
    assert add["parameters"]["required"] == ["a", "b"]
    assert await world.faults() == []
