"""Long results: their head and tail for the model, the whole beside the log for whoever reads on."""

import re
from pathlib import Path
from typing import Any

import pytest

from flux.agents.history.results import MAX_ARTIFACT
from flux.errors import ArtifactNotFound, SessionNotFound
from flux.events import ContextFrozen, ToolDone
from flux.messages import ToolResult
from flux.models.base import ModelRequest
from flux.store.database import LOCAL, Scope, one
from flux.testing import Call, Reply, ScriptedModel
from flux.tools.base import Done, Tool, ToolContext, ToolOutcome
from flux.tools.function import tool_of
from tests.integration.agents.world import of, opened

SHOWN = re.compile(r"artifact://([0-9a-f-]{36})")
ROWS = [f"row {n}" for n in range(40_000)]


def longs() -> dict[str, Tool]:
    """Tools that say much."""

    async def rows() -> str:
        """Say more than is shown."""
        return "\n".join(ROWS)

    async def keeps(context: ToolContext, size: int = 3) -> ToolOutcome:
        """Keep two things and ask in between."""
        first = await context.keep(b"x" * size, "image/png")
        second = await context.keep(b"two", "Text/HTML; charset=utf-8")
        return Done(f"{first} {second}")

    return {tool.name: tool for tool in (tool_of(rows), tool_of(keeps))}


@pytest.mark.behaviour("artifacts:cut")
@pytest.mark.parametrize("offered", [True, False])
async def test_of_a_long_result_the_model_sees_head_and_tail_and_where_the_whole_is(
    tmp_path: Path, offered: bool
) -> None:
    async with opened(tmp_path, longs()) as world:
        tools = ["rows", *(["read_file"] if offered else [])]
        await world.agent([Reply("", calls=(Call("rows"),)), Reply("ok")], tools=tools)
        log = await world.ask("go")
        (done,) = of(log, ToolDone)
        assert len(done.content) <= 100_000
        assert done.content.startswith("row 0\n")
        assert "row 39999\n[the whole is kept" in done.content
        told = 'read on with read_file("artifact://{}")]'
        assert done.content.endswith(told.format(done.artifact))
        (kept,) = await world.process.artifacts.page(LOCAL, world.id)
        assert (kept.id, kept.media_type, kept.size) == (done.artifact, "text/plain", len("\n".join(ROWS)))
        assert (await world.process.artifacts.get(LOCAL, world.id, kept.id))[1].decode().split("\n") == ROWS


@pytest.mark.behaviour("artifacts:reader")
async def test_an_agent_without_read_file_reads_on_in_what_its_shell_said(tmp_path: Path) -> None:
    def turn(request: ModelRequest) -> Reply:
        results = [message for message in request.messages if isinstance(message, ToolResult)]
        if not results:
            return Reply("", calls=(Call("shell", {"command": "seq -f 'line %06g' 1 20000"}),))
        if len(results) == 1:
            found = SHOWN.search(results[0].content)
            assert found is not None
            return Reply(
                "", calls=(Call("read_file", {"path": f"artifact://{found[1]}", "offset": 9_999, "limit": 2}),)
            )
        return Reply("it is there")

    async with opened(tmp_path) as world:
        await world.agent(turn, tools=["shell"], tool_approvals={"shell": False})
        done = of(await world.ask("look"), ToolDone)
        assert len(done[0].content) <= 100_000
        assert "line 009999" not in done[0].content
        assert "\tline 009999\n" in done[1].content
        assert await world.faults() == []
        await world.ask("and again")
        before, after = of(await world.log(), ContextFrozen)
        assert [tool["name"] for tool in before.tools] == ["shell"]
        assert [tool["name"] for tool in after.tools] == ["shell", "read_file"]
    async with opened(tmp_path) as heir:
        heir.id, heir.models["main"] = world.id, ScriptedModel(turn)
        assert len(of(await heir.ask("again"), ContextFrozen)) == 2
        assert [tool.name for tool in heir.model.requests[-1].tools] == ["shell", "read_file"]


@pytest.mark.behaviour("artifacts:reader")
async def test_who_hears_of_an_address_from_a_sub_agent_can_read_it(tmp_path: Path) -> None:
    async with opened(tmp_path, longs()) as world:
        world.models["helper"] = ScriptedModel(
            lambda request: (
                Reply(f"it is at {SHOWN.search(request.messages[-1].content)[0]}")  # type: ignore[index]
                if isinstance(request.messages[-1], ToolResult)
                else Reply("", calls=(Call("rows"),))
            )
        )

        def parent(request: ModelRequest) -> Reply:
            last = request.messages[-1]
            if not isinstance(last, ToolResult):
                return Reply("", calls=(Call("delegate", {"agent": "helper", "instruction": "look"}),))
            found = SHOWN.search(last.content)
            return Reply("", calls=(Call("read_file", {"path": found[0], "offset": 39_999}),)) if found else Reply("ok")

        fields = {"name": "helper", "model": "test/helper", "description": "looks", "tools": ["rows"]}
        await world.agent(parent, subagents=[fields])
        done = of(await world.ask("go"), ToolDone)[-1]
        assert (done.outcome, done.content[-9:]) == ("success", "row 39999")


@pytest.mark.behaviour("artifacts:read")
async def test_tools_read_what_their_own_session_has_kept_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path, longs()) as world:
        script = [Reply("", calls=(Call("rows"),)), Reply("ok")]
        await world.agent(script, tools=["rows", "read_file"])
        (done,) = of(await world.ask("go"), ToolDone)
        path = f"artifact://{done.artifact}"
        places: list[dict[str, Any]] = [{"path": path, "offset": 20_000, "limit": 2}, {"path": "artifact://nowhere"}]
        script += [Reply("", calls=tuple(Call("read_file", place) for place in places)), Reply("ok")]
        await world.ask("more")
        told = {result.content for result in world.model.requests[-1].messages if isinstance(result, ToolResult)}
        assert (
            " 20001\trow 20000\n 20002\trow 20001\n[lines 20001 to 20002 of 40000; read on with offset=20002]" in told
        )
        assert "there is no artifact 'nowhere' in this session" in told
        first = world.id
        script[:] = [Reply("", calls=(Call("read_file", {"path": path}),)), Reply("ok")]
        await world.start("go")
        await world.rest()
        (done,) = of(await world.log(), ToolDone)
        assert done.content == f"there is no artifact {path.removeprefix('artifact://')!r} in this session"
        with pytest.raises(ArtifactNotFound, match="no artifact"):
            await world.process.artifacts.get(LOCAL, world.id, path)
        with pytest.raises(SessionNotFound):
            await world.process.artifacts.get(Scope("default", "stranger"), first, path)


@pytest.mark.behaviour("artifacts:keep")
async def test_what_a_tool_keeps_has_a_name_a_type_and_a_limit(tmp_path: Path) -> None:
    async with opened(tmp_path, longs()) as world:
        calls = (Call("keeps"), Call("keeps", {"size": MAX_ARTIFACT + 1}))
        await world.agent([Reply("", calls=calls), Reply("ok")], tools=["keeps"])
        small, large = of(await world.ask("go"), ToolDone)
        kept = await world.process.artifacts.page(LOCAL, world.id)
        assert [f"artifact://{one.id}" for one in kept] == small.content.split(" ")
        assert small.artifact == kept[1].id
        assert [(one.media_type, one.size) for one in kept] == [("image/png", 3), ("text/html", 3)]
        assert [re.sub("-[0-9a-f]{8}", "-N", one.name) for one in kept] == ["keeps-N.png", "keeps-N.html"]
        assert large.content == "TooLarge: an artifact may have 50,000,000 bytes, this one has 50,000,001"
        await world.process.sessions.end(LOCAL, world.id)
        await world.process.sessions.delete(LOCAL, world.id)
        assert await world.process.database.read(one("select count(*) from artifacts")) == [(0,)]


@pytest.mark.behaviour("artifacts:tree")
async def test_a_session_and_its_sub_agents_share_what_they_keep(tmp_path: Path) -> None:
    async with opened(tmp_path, longs()) as world:
        address = ""

        def child(request: ModelRequest) -> Reply:
            nonlocal address
            last = request.messages[-1]
            if not isinstance(last, ToolResult):
                return Reply("", calls=(Call("rows"),))
            found = SHOWN.search(last.content)
            address = found[1] if found else ""
            return Reply("kept")

        def parent(request: ModelRequest) -> Reply:
            last = request.messages[-1]
            if not isinstance(last, ToolResult):
                return Reply("", calls=(Call("delegate", {"agent": "helper", "instruction": "look"}),))
            if last.call.name == "read_file":
                return Reply("ok")
            return Reply("", calls=(Call("read_file", {"path": f"artifact://{address}", "offset": 39_999}),))

        world.models["helper"] = ScriptedModel(child)
        fields = {"name": "helper", "model": "test/helper", "description": "looks", "tools": ["rows"]}
        await world.agent(parent, subagents=[fields], tools=["read_file"])
        done = of(await world.ask("go"), ToolDone)[-1]
        assert (done.outcome, done.content[-9:]) == ("success", "row 39999")
