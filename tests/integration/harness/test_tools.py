"""The tools of a harness: the bundled ones by other names, and functions of the application."""

import asyncio
import logging
import threading
import time
from typing import Any

import bashkit
import pytest
from pydantic import BaseModel

from flux import ToolCallContext, define_tool, init_agent, tool
from flux.agents.define.called import built_in
from flux.sandboxes import local, virtual
from flux.testing import Call, Reply, ScriptedModel
from flux.tools.base import Done, Failed, ToolContext
from flux.tools.blocking import LoopWatch
from tests.integration.harness.conftest import MakeAgent
from tests.integration.harness.test_sessions import GUARD, texts


async def used(name: str, sandbox: Any, **args: Any) -> str:
    found = {one.name: one for one in built_in(sandbox)}[name]
    outcome = await found.run(args, ToolContext("s", "c", sandbox, lambda _: None))
    assert isinstance(outcome, Done | Failed)
    return outcome.content


@pytest.mark.behaviour("harness:tools:built-in")
async def test_built_in_tools_have_their_names_arguments_and_limits() -> None:
    sandbox = await virtual().open()
    tools = {one.name: one for one in built_in(sandbox)}
    assert list(tools) == ["read", "write", "edit", "bash", "grep", "glob"]
    assert set(tools["read"].parameters["properties"]) == {"path", "offset", "limit"}
    assert set(tools["edit"].parameters["properties"]) == {"path", "old_text", "new_text", "replace_all"}
    assert tools["edit"].parameters["required"] == ["path", "old_text", "new_text"]
    assert set(tools["bash"].parameters["properties"]) == {"command", "timeout"}
    await used("write", sandbox, path="long.txt", content="".join(f"line {n}\n" for n in range(3_000)))
    read = await used("read", sandbox, path="long.txt")
    assert "read on with offset=2000" in read
    assert "[100 of" not in read
    assert len(await used("read", sandbox, path="long.txt", offset=0, limit=5)) < 200
    await used("write", sandbox, path="wide.txt", content="x" * 60_000)
    assert "more characters in this line" in await used("read", sandbox, path="wide.txt")
    found = await used("grep", sandbox, pattern="line", path="long.txt")
    assert (found.count("\n"), "the first 100 are shown" in found) == (100, True)
    for n in range(1_010):
        await sandbox.write(f"many/f{n}.txt", b"")
    assert "1000 of 1010 files are shown" in await used("glob", sandbox, pattern="many/*.txt")


@pytest.mark.behaviour("harness:tools:built-in")
async def test_an_edit_is_literal_and_speaks_of_its_own_arguments() -> None:
    sandbox = await virtual().open()
    await sandbox.write("a.txt", b"price: $1 (a+b) \\1\nother\n")
    await used("edit", sandbox, path="a.txt", old_text="$1 (a+b) \\1", new_text="\\g<0> $2")
    assert await sandbox.read("a.txt") == b"price: \\g<0> $2\nother\n"
    assert "old_text occurs 0 times" in await used("edit", sandbox, path="a.txt", old_text="nope", new_text="x")
    assert "old_text is empty; use write to" in await used("edit", sandbox, path="a.txt", old_text="", new_text="x")
    edits = [used("edit", sandbox, path="n.txt", old_text=f"<{n}>", new_text=str(n)) for n in range(20)]
    await sandbox.write("n.txt", "".join(f"<{n}>" for n in range(20)).encode())
    await asyncio.gather(*edits)
    assert await sandbox.read("n.txt") == "".join(map(str, range(20))).encode()


@pytest.mark.behaviour("harness:tools:asks")
async def test_tools_that_change_the_host_ask_unless_the_application_says_otherwise(desk: MakeAgent) -> None:
    script = [Reply("", calls=(Call("write", {"path": "a", "content": "b"}),)), Reply("Written.")]
    session = await (await init_agent(desk(script, sandbox=local()), id="t-1")).session()
    handle = session.prompt("Write")
    while not (asked := await session.interrupts()):
        assert not handle.done
    await session.respond(asked[0].id, "reject", reason="not here")
    await handle
    assert "not here" in texts(await session.history())[2]
    trusting = desk(script, sandbox=local(), tool_approvals={"write": False})
    harness = await init_agent(trusting, id="t-2")
    assert (await (await harness.session()).prompt("Write")).text == "Written."
    assert await harness.fs.read_file("a") == "b"


class Order(BaseModel):
    number: int


@pytest.mark.behaviour("harness:tools:own")
async def test_functions_get_checked_arguments_and_the_context_of_their_call(
    desk: MakeAgent, models: dict[str, ScriptedModel]
) -> None:
    seen: list[Any] = []

    def plain(args: dict[str, Any], ctx: ToolCallContext) -> dict[str, Any]:
        seen.append((args, threading.current_thread() is threading.main_thread(), ctx.session, ctx.call_id))
        ctx.progress("half way")
        return {"ok": args["number"]}

    @tool
    async def typed(number: int, ctx: ToolCallContext) -> str:
        """Typed."""
        raise ValueError(f"no {number} in {ctx.session[:1]}")

    calls = (
        Call("plain", {"number": "x"}),
        Call("plain", {"number": 7}),
        Call("typed", {"number": 1, "other": 2}),
        Call("typed", {"number": 1}),
    )
    tools = [define_tool("plain", plain, description="d", parameters=Order), typed]
    session = await (await init_agent(desk([Reply("", calls=calls), Reply("Done.")], tools=tools), id="t-1")).session()
    await session.prompt("Go")
    results = texts(await session.history())[2:6]
    assert "number" in results[0]
    assert results[1] == '{"ok":7}'
    assert "other" in results[2]
    assert results[3].startswith("ValueError: no 1 in")
    (args, in_main, of, call), *rest = seen
    assert (args, in_main, of, bool(call), rest) == ({"number": 7}, False, session.id, True, [])


@pytest.mark.behaviour("harness:tools:blocking")
async def test_a_tool_that_blocks_the_loop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    watch = LoopWatch(patience=0.05)

    async def polite() -> None:
        await asyncio.sleep(0)

    async def rude() -> None:
        time.sleep(0.3)

    with (
        caplog.at_level(logging.WARNING),
        watch.watching("polite", polite.__code__),
        watch.watching("rude", rude.__code__),
    ):
        await asyncio.wait_for(asyncio.gather(polite(), rude()), GUARD)
    assert caplog.text.count("the tool ") == 1
    assert "the tool rude has blocked the event loop for more than 0.05 s" in caplog.text


class Recorded:
    """Only looks like a shell: remembers what a real one is told."""

    def __init__(self) -> None:
        self.bash = bashkit.Bash()
        self.told: list[str] = []

    async def exec(self, command: str) -> Any:
        self.told.append(command)
        return await self.bash.execute(command)


@pytest.mark.behaviour("harness:init:bash-like")
@pytest.mark.parametrize("make", [bashkit.Bash, Recorded])
async def test_a_function_may_make_whatever_runs_commands(desk: MakeAgent, make: Any) -> None:
    call = Call("edit", {"path": "sub/a.txt", "old_text": "one", "new_text": "two"})
    agent = desk([Reply("", calls=(call, Call("glob", {"pattern": "*.txt"}))), Reply("Done.")], sandbox=make)
    harness = await init_agent(agent, id="t-1")
    fs = harness.fs
    await fs.write_file("sub/a.txt", b"one\0")
    await fs.write_file("sub/a.txt", "one")
    session = await harness.session()
    await session.prompt("Edit")
    assert await fs.read_file("sub/a.txt") == "two"
    assert "sub/a.txt" in texts(await session.history())[3]
    stat = await fs.stat("sub")
    assert (stat.is_directory, stat.is_file, (await fs.stat("sub/a.txt")).size) == (True, False, 3)
    assert await fs.readdir("sub") == ["a.txt"]
    done = await harness.shell("echo $X; pwd; exit 2", env={"X": "it's"}, cwd="sub")
    assert (done.exit_code, done.stdout.splitlines()) == (2, ["it's", f"{harness.sandbox.cwd}/sub"])
    with pytest.raises(FileNotFoundError):
        await fs.read_file("nothing")
    with pytest.raises(IsADirectoryError):
        await fs.read_file("sub")
    await fs.rm("sub", recursive=True)
    assert not await fs.exists("sub")
    await fs.rm("sub", force=True)
