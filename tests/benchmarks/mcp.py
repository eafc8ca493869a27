"""MCP: what an agent adds to the bare client, when a session begins and when a tool is called."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from mcp.client import Client

from flux.agents.define.definition import define
from flux.agents.process import Process, open_process
from flux.engine.intake.inputs import NewMessage
from flux.messages import AssistantMessage, UserMessage
from flux.models.base import ModelRequest
from flux.settings import load_settings
from flux.store.database import LOCAL
from flux.testing import Call, Reply, ScriptedModel
from flux.tools.base import Tool
from flux.tools.function import tool_of
from tests.benchmarks.children import ROOT
from tests.benchmarks.frame import Row, Size, median, ms

BARE_START = "the bare client: connect and list, and a turn without servers"
BARE_CALL = "the bare client: one call, and a turn with a local tool"
#: Milliseconds that an agent may add.
TARGET = 10.0


async def measure(size: Size, home: Path) -> list[Row]:
    """A session with a server nobody is connected to yet, and a call of its tool."""
    with server() as url:
        connecting, calling = await bare(url, size.turns, size.warm_up)
        async with agents(home, {"add": tool_of(add)}) as process:
            plain = await several(lambda n: turn(process, f"plain-{n}", "say"), process, [], size)
            fresh = await several(lambda n: turn(process, f"fresh-{n}", "say"), process, [url], size)
            local = await several(
                lambda n: turn(process, "local", "add"), process, [], size, one="local", tools=["add"]
            )
            warm = await several(lambda n: turn(process, "warm", "mcp__bench__add"), process, [url], size, one="warm")
    return [
        Row(
            name="session start, median", figure=ms(median(fresh)), unit="ms",
            limit=ms(median(connecting) + median(plain)), limit_is=BARE_START, target=TARGET, over=True,
        ),
        Row(
            name="tool call, median", figure=ms(median(warm)), unit="ms",
            limit=ms(median(calling) + median(local)), limit_is=BARE_CALL, target=TARGET, over=True,
        ),
    ]  # fmt: skip


async def several(
    work: Callable[[int], Awaitable[float]],
    process: Process,
    urls: list[str],
    size: Size,
    *,
    one: str = "",
    tools: list[str] | None = None,
) -> list[float]:
    """Seconds of each turn. Agents are made before; each has a connection of its own, unless it is `one`."""
    count = size.turns + size.warm_up
    for n in range(1 if one else count):
        name = one or f"{'fresh' if urls else 'plain'}-{n}"
        servers = [{"url": url, "name": "bench", "headers": {"X-Agent": name}} for url in urls]
        made = define({"name": name, "model": "test/any", "mcp_servers": servers, "tools": tools or []})
        await process.agents.put(LOCAL, made, create=True, update=True)
    return [await work(n) for n in range(count)][size.warm_up :]


async def turn(process: Process, agent: str, text: str) -> float:
    """Seconds of a session from its start to its answer."""
    began = time.perf_counter()
    id = (await process.sessions.start(LOCAL, agent, NewMessage(text))).id
    async with aclosing(process.sessions.follow(LOCAL, id)) as frames:
        async for several in frames:
            if any(frame.type == "chat_response" for frame in several):
                break
    return time.perf_counter() - began


async def bare(url: str, turns: int, warm_up: int) -> tuple[list[float], list[float]]:
    """Seconds to connect and list, and to call a tool, with the SDK alone."""
    connecting, calling = [], []
    for _ in range(turns + warm_up):
        began = time.perf_counter()
        async with Client(url) as client:
            await client.list_tools()
            connecting.append(time.perf_counter() - began)
    async with Client(url) as client:
        await client.list_tools()
        for _ in range(turns + warm_up):
            began = time.perf_counter()
            await client.call_tool("add", {"a": 1, "b": 2})
            calling.append(time.perf_counter() - began)
    return connecting[warm_up:], calling[warm_up:]


def script(request: ModelRequest) -> Reply:
    """Call the tool that the message names, once."""
    said = next(message for message in request.messages if isinstance(message, UserMessage))
    name = str(getattr(said.parts[0], "text", ""))
    if name.endswith("add") and not any(isinstance(message, AssistantMessage) for message in request.messages):
        return Reply(calls=(Call(name, {"a": 1, "b": 2}),))
    return Reply("done")


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@asynccontextmanager
async def agents(home: Path, tools: dict[str, Tool]) -> AsyncIterator[Process]:
    """Flux in this process, with a model that answers at once."""
    settings = load_settings({}, cwd=home, home=str(home))
    async with open_process(
        settings,
        environment=os.environ,
        workspace=home,
        factories={"test": lambda _: ScriptedModel(script, remember=0)},
        tools=tools,
    ) as process:
        yield process


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server in a process of its own."""
    command: list[Any] = [sys.executable, "-m", "tests.benchmarks.mcp_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        try:
            yield child.stdout.readline().strip() if child.stdout else ""
        finally:
            child.kill()
