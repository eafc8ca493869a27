"""`mcp()` in workflows and outside: an MCP server's tools as tasks."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, pause, workflow
from flux.agents.asking import EXECUTOR
from flux.agents.executor import SessionExecutor
from flux.agents.mcp.tasks import POOL, SECRETS
from flux.agents.parts.task_tools import TaskTools
from flux.agents.turn.binding import Binder
from flux.engine.configuration.key_source import KeySource
from flux.engine.configuration.secrets import Secrets
from flux.entries.workflows import TaskCompleted
from flux.errors import DefinitionInvalid, InvalidInput, ToolExecutionError
from flux.events import Paused
from flux.messages import ToolResult
from flux.models.registry import ModelRegistry
from flux.models.scripted import Call, Reply, ScriptedModel
from flux.settings import Settings
from flux.store.database import LOCAL, Database
from flux.tasks.ai import agent
from flux.tasks.mcp import bearer, mcp, oauth
from flux.tools.mcp.pool import McpPool
from tests.integration.tools import mcp_asking, mcp_server
from tests.integration.tools.mcp_hostile import Hostile, hostile, text, tool
from tests.integration.workflows.machine import Machine, working


@asynccontextmanager
async def working_with_mcp(database: Database, home: Path) -> AsyncIterator[Machine]:
    """A process with connections and secrets of its own."""
    async with working(database) as machine:
        pool = McpPool({}, str(home))
        machine.services.kept.put(POOL, pool)
        machine.services.kept.put(SECRETS, Secrets(database, KeySource(home)))
        yield machine
        await pool.close()


@pytest.fixture
async def machine(database: Database, tmp_path: Path) -> AsyncIterator[Machine]:
    async with working_with_mcp(database, tmp_path) as machine:
        yield machine


@workflow.with_options(namespace="mcp")
async def adds(ctx: ExecutionContext[Any]) -> Any:
    """Call a tool, wait for somebody, and call it again."""
    async with mcp(ctx.input, name="bench") as client:
        tools = await client.discover()
        first = await tools.add(2, b=3)
        more = await pause("more")
        return [first, await tools.add(a=first, b=more), await tools.shaped(), len(tools) > 5]


@workflow.with_options(namespace="mcp")
async def fails(ctx: ExecutionContext[Any]) -> Any:
    """Call what fails, and what does not fit."""
    async with mcp(ctx.input, name="h", retry_max_attempts=2, retry_delay=0) as client:
        tools = await client.discover()
        said = []
        for call, args in ((tools.bad, {}), (tools.good, {"n": "many"})):
            try:
                await call(**args)
            except ToolExecutionError as error:
                said.append(str(error))
        return said


@workflow.with_options(namespace="mcp")
async def asks(ctx: ExecutionContext[Any]) -> Any:
    """Call a tool whose server asks a person."""
    async with mcp(ctx.input["url"], name="ask") as client:
        tools = await client.discover()
        return await tools[ctx.input["tool"]](**ctx.input.get("args", {}))


@workflow.with_options(namespace="mcp")
async def assisted(ctx: ExecutionContext[Any]) -> Any:
    """Give the tools to an agent."""
    async with mcp(ctx.input, name="bench") as client:
        tools = await client.discover()
        helper = await agent("Add.", model="test/helper", tools=[tools.add, tools.shaped])
        return await helper("what is 2 + 3?")


@workflow.with_options(namespace="mcp")
async def signed(ctx: ExecutionContext[Any]) -> Any:
    """Call with a token that is a secret."""
    async with mcp(ctx.input, name="h", auth=bearer(secret="KEY")) as client:
        return await (await client.discover()).good()


@pytest.mark.behaviour("mcp:tasks:durable")
async def test_a_call_is_a_task_and_a_workflow_that_goes_on_makes_none_again(machine: Machine) -> None:
    async with mcp_server.serving(mcp_server.build()) as url:
        paused = await machine.run(adds, url)
        assert paused.is_paused
        await machine.resume(paused.execution_id, 10, "more")
        ended = await machine.until(paused.execution_id, "ended")
    assert ended.output == [5, 15, {"city": "Bern", "degrees": 21}, True]
    entries = [stored.entry for stored in await machine.entries(paused.execution_id)]
    names = [entry.name for entry in entries if isinstance(entry, TaskCompleted)]
    assert names.count("mcp_bench_discover") == 1
    assert names.count("mcp_bench_add") == 2


@pytest.mark.behaviour("mcp:tasks:errors")
async def test_a_tool_that_fails_raises_and_is_tried_again_as_told(machine: Machine) -> None:
    tries: list[int] = []

    def bad(_: Any) -> dict[str, Any]:
        tries.append(1)
        return text("it broke", isError=True)

    integer = {"type": "object", "properties": {"n": {"type": "integer"}}}
    server = Hostile(tool("bad"), tool("good", inputSchema=integer), bad=bad)
    async with hostile(server) as url:
        ended = await machine.run(fails, url)
    assert "it broke" in ended.output[0]
    assert "do not fit good" in ended.output[1]
    assert len(tries) == 3


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.behaviour("mcp:tasks:elicitation")
async def test_what_a_server_asks_pauses_the_workflow_until_it_is_answered(
    database: Database, tmp_path: Path, old: bool
) -> None:
    known = mcp_asking.Known()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(mcp_server.serving(mcp_asking.build(known, old=old)))
        name = "reserve" if old else "book"
        async with working_with_mcp(database, tmp_path) as machine:
            paused = await machine.run(asks, {"url": url, "tool": name})
            entries = [stored.entry for stored in await machine.entries(paused.execution_id)]
            (asked,) = [entry for entry in entries if isinstance(entry, Paused)]
            shown = asked.output
            assert (shown["type"], shown["mode"], shown["server_name"]) == ("elicitation", "form", "ask")
            assert "state" not in shown
        async with working_with_mcp(database, tmp_path) as later:
            answer = {"elicitation_response": {"action": "accept", "content": {"seats": 3}}}
            await later.resume(paused.execution_id, answer)
            ended = await later.until(paused.execution_id, "ended")
    assert ended.output == ("accept 3" if old else "booked 3, note none")


@pytest.mark.behaviour("mcp:tasks:agent")
async def test_an_agent_in_a_workflow_uses_the_tools_with_their_schemas(machine: Machine, tmp_path: Path) -> None:
    model = ScriptedModel([Reply(calls=(Call("mcp_bench_add", {"a": 2, "b": 3}),)), Reply("five")])
    registry = ModelRegistry({}, {}, {"test": lambda _: model})
    executor = SessionExecutor(
        machine.database, Binder(registry, tmp_path, {}), registry, Settings(home=tmp_path),
        before=[TaskTools(machine.services)],
    )  # fmt: skip
    machine.services.kept.put(EXECUTOR, executor)
    async with mcp_server.serving(mcp_server.build()) as url:
        ended = await machine.run(assisted, url)
    assert ended.output == "five"
    add = next(tool for tool in model.requests[0].tools if tool.name == "mcp_bench_add")
    assert add.parameters["properties"]["a"]["type"] == "integer"
    (result,) = [message for message in model.requests[-1].messages if isinstance(message, ToolResult)]
    assert result.content == "5"


@pytest.mark.behaviour("mcp:tasks:auth")
async def test_a_token_comes_from_a_secret_a_function_or_the_code(machine: Machine, tmp_path: Path) -> None:
    server = Hostile(tool("good"), good=lambda _: text("good"))
    async with hostile(server) as url:
        await Secrets(machine.database, KeySource(tmp_path)).set(LOCAL, "KEY", "of the vault")
        assert (await machine.run(signed, url)).output == "good"
        for auth in (bearer("as it is"), bearer(provider=lambda: "of a function")):
            async with mcp(url, name="h", auth=auth) as client:
                assert await (await client.discover()).good() == "good"
        sent = [headers["authorization"] for method, headers in server.seen if method == "tools/call"]
    assert sent == ["Bearer of the vault", "Bearer as it is", "Bearer of a function"]


@pytest.mark.behaviour("mcp:tasks:outside")
async def test_a_plain_script_may_use_it_too_but_asks_nobody() -> None:
    async with mcp([sys.executable, mcp_server.__file__]) as client:
        tools = await client.discover()
        assert await tools.add(1, 2) == 3
        with pytest.raises(AttributeError, match="no tool 'subtract'"):
            await tools.subtract(1, 2)
    async with mcp_server.serving(mcp_asking.build(mcp_asking.Known())) as url, mcp(url) as client:
        with pytest.raises(ToolExecutionError, match="nobody can be asked outside a workflow"):
            await (await client.discover()).book()


@pytest.mark.behaviour("mcp:tasks:checked")
def test_a_client_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(DefinitionInvalid, match="http:// or https://"):
        mcp("nowhere")
    with pytest.raises(InvalidInput, match="takes a token"):
        bearer()
    with pytest.raises(DefinitionInvalid, match="auth and headers are for a url"):
        mcp(["x"], auth=oauth())
