"""What MCP servers ask people, in all three shapes: now, days later, by another process."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import pytest

from flux.events import ApprovalRequired, Elicited, InputRequired, ToolDone
from flux.store.interrupts import payload_of
from flux.testing import Call, Reply
from tests.integration.agents.world import World, of, opened
from tests.integration.tools import mcp_asking, mcp_server

Way = Literal["http", "sse", "stdio"]
LONG, NOT_AT_ALL = 20.0, 0.0


@pytest.fixture
def known() -> mcp_asking.Known:
    return mcp_asking.Known()


@pytest.fixture
async def old_server(request: pytest.FixtureRequest, known: mcp_asking.Known) -> AsyncIterator[dict[str, Any]]:
    """A server of 2025-11-25, over HTTP unless a test names another way."""
    async with AsyncExitStack() as stack:
        yield await _served(stack, known, getattr(request, "param", "http"), old=True)


@pytest.fixture
async def new_server(request: pytest.FixtureRequest, known: mcp_asking.Known) -> AsyncIterator[dict[str, Any]]:
    """A server of 2026-07-28."""
    async with AsyncExitStack() as stack:
        yield await _served(stack, known, getattr(request, "param", "http"), old=False)


async def _served(stack: AsyncExitStack, known: mcp_asking.Known, way: Way, *, old: bool) -> dict[str, Any]:
    if way == "stdio":
        return {"command": [sys.executable, mcp_asking.__file__, *(["old"] if old else [])], "name": "ask"}
    server = mcp_asking.build(known, old=old)
    return {"url": await stack.enter_async_context(mcp_server.serving(server, way)), "name": "ask"}


def calls(*names: str, **args: Any) -> list[Reply]:
    """A model that makes one call of each tool, and is content."""
    return [Reply(calls=tuple(Call(f"mcp__ask__{name}", args) for name in names)), Reply("ok")]


async def answered(world: World, decision: str, content: Any = None) -> str:
    """What the one call came to when its one question was answered."""
    await world.answer((await world.questions())[0], decision, content=content)
    await world.rest("idle")
    return of(await world.log(), ToolDone)[-1].content


every_way = pytest.mark.parametrize("old_server", ["http", "sse", "stdio"], indirect=True)


@every_way
@pytest.mark.behaviour("mcp:elicitation:in-flight")
async def test_a_call_waits_for_the_answer_to_what_its_server_asks(tmp_path: Path, old_server: dict[str, Any]) -> None:
    async with opened(tmp_path, elicitation_window=LONG) as world:
        await world.agent(calls("book"), mcp_servers=[old_server])
        await world.start("go")
        await world.until_entry(Elicited)
        (entry,) = of(await world.log(), Elicited)
        assert (entry.mode, entry.message, entry.server_name) == ("form", "How many seats?", "ask")
        assert entry.schema is not None
        assert entry.schema["required"] == ["seats"]
        assert (await world.row()).state == "running"
        assert await answered(world, "accept", {"seats": 2}) == "booked 2, note none"
        assert await world.faults() == []


@every_way
@pytest.mark.behaviour("mcp:elicitation:days-later")
async def test_a_call_that_waited_too_long_is_issued_again_on_accept(
    tmp_path: Path, old_server: dict[str, Any], known: mcp_asking.Known
) -> None:
    async with opened(tmp_path, elicitation_window=NOT_AT_ALL) as world:
        await world.agent(calls("reserve"), mcp_servers=[old_server])
        id = await world.start("go")
        assert await world.rest() == "waiting"
    async with opened(tmp_path, elicitation_window=NOT_AT_ALL) as later:
        await later.agent(calls("reserve"), mcp_servers=[old_server])
        later.id = id
        assert await answered(later, "accept", {"seats": 3}) == "accept 3"
        assert len(of(await later.log(), Elicited)) == 1
        assert await later.faults() == []
    assert known.began in ([], ["reserve", "reserve"])  # nothing is known of a program


@pytest.mark.behaviour("mcp:elicitation:once-asks-first")
async def test_a_call_that_must_not_run_twice_is_issued_again_only_with_a_yes(
    tmp_path: Path, old_server: dict[str, Any], known: mcp_asking.Known
) -> None:
    async with opened(tmp_path, elicitation_window=NOT_AT_ALL) as world:
        await world.agent(calls("charge"), mcp_servers=[old_server])
        await world.start("go")
        await world.rest()
        await world.answer((await world.questions())[0], "accept", content={"seats": 1})
        await world.until_entry(InputRequired)
        await world.rest("waiting")
        assert known.began == ["charge"]
        assert await answered(world, "answer", "yes") == "charged: accept"
        assert known.began == ["charge", "charge"]


@pytest.mark.parametrize(("decision", "told"), [("decline", "decline"), ("cancel", "cancel")])
@pytest.mark.behaviour("mcp:elicitation:refused")
async def test_a_refusal_is_told_to_the_server_that_waits(
    tmp_path: Path, old_server: dict[str, Any], decision: str, told: str
) -> None:
    async with opened(tmp_path, elicitation_window=LONG) as world:
        await world.agent(calls("reserve"), mcp_servers=[old_server])
        await world.start("go")
        await world.until_entry(Elicited)
        assert await answered(world, decision) == told


@pytest.mark.behaviour("mcp:elicitation:refused")
async def test_a_refusal_of_a_call_that_waits_no_more_ends_it(tmp_path: Path, old_server: dict[str, Any]) -> None:
    async with opened(tmp_path, elicitation_window=NOT_AT_ALL) as world:
        await world.agent(calls("reserve"), mcp_servers=[old_server])
        await world.start("go")
        await world.rest()
        assert "answered ask with decline" in await answered(world, "decline")


@pytest.mark.parametrize("new_server", ["http", "stdio"], indirect=True)
@pytest.mark.behaviour("mcp:elicitation:input-required")
async def test_a_server_that_returns_what_it_needs_gets_it_with_the_same_call_days_later(
    tmp_path: Path, new_server: dict[str, Any]
) -> None:
    async with opened(tmp_path) as world:
        await world.agent(calls("book"), mcp_servers=[new_server])
        id = await world.start("go")
        assert await world.rest() == "waiting"
        if "command" in new_server:  # its key lives as long as the program
            assert await answered(world, "accept", {"seats": 4}) == "booked 4, note none"
            return
    async with opened(tmp_path) as later:
        await later.agent(calls("book"), mcp_servers=[new_server])
        later.id = id
        assert await answered(later, "accept", {"seats": 4, "note": "aisle"}) == "booked 4, note aisle"
        assert await later.faults() == []


@pytest.mark.behaviour("mcp:elicitation:url-required")
async def test_a_server_that_wants_accounts_connected_first_gets_the_call_again(
    tmp_path: Path, old_server: dict[str, Any], known: mcp_asking.Known
) -> None:
    async with opened(tmp_path) as world:
        await world.agent(calls("files", accounts=["drive", "mail"]), mcp_servers=[old_server])
        id = await world.start("go")
        assert await world.rest() == "waiting"
        (question,) = await world.questions()
        asked = payload_of(question)
        assert (asked["mode"], asked["url"]) == ("url", "https://login.example/drive?state=1")
        assert asked["elicitation_id"] == "drive"
        await world.answer(question, "accept")
        await world.until_entry(Elicited, 2)
        await world.rest("waiting")
    known.connected |= {"drive", "mail"}
    async with opened(tmp_path) as later:
        await later.agent(calls("files", accounts=["drive", "mail"]), mcp_servers=[old_server])
        later.id = id
        assert await answered(later, "accept") == "files of drive, mail"
        assert await later.faults() == []


@pytest.mark.behaviour("mcp:elicitation:form-checked")
async def test_a_form_that_is_filled_in_wrongly_is_asked_for_again(tmp_path: Path, old_server: dict[str, Any]) -> None:
    async with opened(tmp_path, elicitation_window=NOT_AT_ALL) as world:
        await world.agent(calls("reserve"), mcp_servers=[old_server])
        await world.start("go")
        for number, wrong in enumerate(({"seats": 99}, "two", {}), 1):
            await world.rest("waiting")
            await world.answer((await world.questions())[0], "accept", content=wrong)
            await world.until_entry(Elicited, number + 1)
        await world.rest("waiting")
        assert "(" in of(await world.log(), Elicited)[-1].message
        assert await answered(world, "accept", {"seats": 3}) == "accept 3"


@pytest.mark.parametrize("url", ["javascript:alert(1)", "file:///etc/passwd", "https://a b/", "x"])
@pytest.mark.behaviour("mcp:elicitation:web-only")
async def test_an_address_that_is_none_of_the_web_is_shown_to_nobody(
    tmp_path: Path, old_server: dict[str, Any], url: str
) -> None:
    async with opened(tmp_path, elicitation_window=LONG) as world:
        await world.agent(calls("visit", url=url), mcp_servers=[old_server])
        log = await world.ask("go")
        assert [done.content for done in of(log, ToolDone)] == ["decline"]
        assert of(log, Elicited) == []


@every_way
@pytest.mark.behaviour("mcp:elicitation:whose")
async def test_each_question_belongs_to_the_call_it_is_from(tmp_path: Path, old_server: dict[str, Any]) -> None:
    labels = ["one", "two", "three"]
    script = [Reply(calls=tuple(Call("mcp__ask__echo", {"label": label}) for label in labels)), Reply("ok")]
    async with opened(tmp_path, elicitation_window=LONG) as world:
        await world.agent(script, mcp_servers=[old_server], max_concurrent_tools=3)
        await world.start("go")
        await world.until_entry(Elicited, 3)
        for question in await world.questions():
            label = labels.index(payload_of(question)["message"].removeprefix("What is ").removesuffix("?"))
            await world.answer(question, "accept", content={"seats": label + 1})
        await world.rest("idle")
        results = sorted(done.content for done in of(await world.log(), ToolDone))
        assert results == ["one is 1", "three is 3", "two is 2"]
        assert of(await world.log(), ApprovalRequired) == []
