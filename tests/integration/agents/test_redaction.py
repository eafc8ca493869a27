"""A secret that a process has given out is in nothing that leaves it."""

import asyncio
from pathlib import Path

import pytest

from flux.errors import InvalidInput
from flux.events import AssistantSaid, ToolDone
from flux.messages import ReasoningPart
from flux.models.base import ModelRequest
from flux.models.scripted import Turn
from flux.store.database import LOCAL, one
from flux.store.feed import START
from flux.testing import Call, Reply
from flux.tools.base import Done, NeedsInput, ToolContext, ToolOutcome
from flux.tools.function import tool_of
from tests.integration.agents.world import of, opened

SECRET = 's3cr3t/of "ann"'
LINES = 10_000


def script(request: ModelRequest) -> Turn:
    if len(request.messages) == 1:
        return Reply(f"I know {SECRET}", (Call("leak", {"x": SECRET}),), reasoning=f"hm {SECRET}")
    return Reply(f"it is {SECRET}, as I said")


async def leak(context: ToolContext, x: str) -> ToolOutcome:
    """Print it."""
    for piece in (SECRET[:4], SECRET[4:9], SECRET[9:] + "!\n"):
        context.output(piece)
    if context.answer is None:
        return NeedsInput("input", {"question": f"is it {SECRET}?"})
    return Done(f"{x} {SECRET}\n" + f"line with {SECRET}\n" * LINES)


@pytest.mark.behaviour("secrets:redacted:sinks")
async def test_no_sink_of_a_session_shows_a_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path, tools={"leak": tool_of(leak)}) as world:
        process = world.process
        await process.secrets.set(LOCAL, "token", SECRET)
        await process.secrets.get(LOCAL, "token")
        await world.agent(script, tools=["leak"], system_prompt=f"Never say {SECRET}.", tool_approvals={"leak": False})
        frames: list[bytes] = []

        async def read() -> None:
            async for batch in process.feed.follow(LOCAL, world.id, START):
                frames.extend(frame.data for frame in batch)

        await world.start()
        reader = asyncio.create_task(read())
        await world.ask(f"{SECRET} is my secret")
        (question,) = await world.questions()
        await world.answer(question, "answer", content="yes")
        await world.rest("idle")
        log = await world.log()
        reader.cancel()
        shown = b"".join(frames).decode()
        assert "I know ***" in shown
        assert "***!" in shown
        for place in (
            shown,
            repr(log),
            repr(world.model.requests),
            repr(await world.row()),
            repr(question),
            caplog.text,
        ):
            assert "s3cr3t" not in place
        kept = await process.database.read(one("select data from artifacts"))
        assert len(kept) == 1
        assert b"s3cr3t" not in kept[0][0]
        assert b"line with ***" in kept[0][0]
        tables = ("events", "interrupts", "executions")
        for table in tables:
            assert "s3cr3t" not in repr(await process.database.read(one(f"select * from {table}")))
    assert of(log, ToolDone)[0].content.startswith("*** ***\n")
    first, last = of(log, AssistantSaid)
    assert first.calls[0].args == {"x": "***"}
    assert ReasoningPart("hm ***") in first.parts
    assert last.parts[0].text == "it is ***, as I said"  # type: ignore[union-attr]


@pytest.mark.behaviour("secrets:redacted:memories")
async def test_a_memory_holds_no_secret_and_shows_none_that_it_held_before(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        memories, own = world.process.memories, world.process.memory_stores.own
        await own.put(LOCAL, "notes", "before", {"the password": [SECRET]})
        await world.process.secrets.set(LOCAL, "token", SECRET)
        await world.process.secrets.get(LOCAL, "token")
        await own.put(LOCAL, "notes", "after", {f"is {SECRET}": [f"{SECRET}!"]})
        with pytest.raises(InvalidInput, match="memory key: it holds a secret"):
            await own.put(LOCAL, "notes", f"of {SECRET}", "x")
        kept = {
            row[0]: row[1:] for row in await world.process.database.read(one("select key, value, words from memories"))
        }
        assert kept["after"][0] == '{"is ***":["***!"]}'
        assert "s3cr3t" not in kept["after"][1]
        found = await memories.get(LOCAL, "before", agent=None, area="notes")
        listed = await memories.page(LOCAL, agent=None, area="notes")
        assert found.value == '{"the password":["***"]}'
        assert "s3cr3t" not in repr(listed)


@pytest.mark.behaviour("secrets:redacted:sinks")
async def test_what_was_kept_before_the_secret_was_known_is_not_shown_after(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.agent(lambda request: Reply("ok"))
        await world.ask(f"my password is {SECRET}")
        await world.process.secrets.set(LOCAL, "token", SECRET)
        await world.process.secrets.get(LOCAL, "token")
        async for batch in world.process.feed.follow(LOCAL, world.id, START):
            assert b"s3cr3t" not in b"".join(frame.data for frame in batch)
            assert b"my password is ***" in b"".join(frame.data for frame in batch)
            break
        await world.ask("and?")
        assert "s3cr3t" not in repr(world.model.requests[-1])
