"""Sessions of `ctx.init`: copies, summaries, streams and deletions that a workflow does once."""

import asyncio
from typing import Any

import pytest

from flux import AbortError, init_agent, pause, workflow
from flux.errors import Conflict, InvalidInput, SessionBusyError, SessionExists, SessionNotFound
from flux.events import AssistantSaid, Token, ToolStarted
from flux.models.base import ModelRequest
from flux.models.scripted import Turn
from flux.testing import Call, Reply
from flux.testing.session_stores import MemorySessionStore
from tests.integration.harness.conftest import MakeAgent
from tests.integration.harness.test_sessions import texts

REPLIES = [Reply("One."), Reply("Two."), Reply("Three."), Reply("Four.")]


async def through(code: Any) -> Any:
    """The output of a workflow that pauses, and is run again from the top then."""
    paused = await code.run_async()
    assert paused.is_paused, paused.error
    done = await code.resume_async(paused.execution_id, "now")
    assert done.has_succeeded, done.error
    return done.output


async def refused(work: Any, error: type[Exception]) -> str:
    with pytest.raises(error) as raised:
        await work
    return str(raised.value)


@pytest.mark.behaviour("harness:workflow:fork")
async def test_a_session_is_copied_and_the_copy_goes_on(desk: MakeAgent) -> None:
    agent = desk(REPLIES)

    @workflow
    async def story(ctx: Any) -> Any:
        session = await (await ctx.init(agent)).session()
        await session.prompt("1")
        copy, named, bare = await session.fork(), await session.fork(name="named"), await session.fork(1)
        taken = await refused(session.fork(name="named"), SessionExists)
        beyond = await refused(session.fork(99), InvalidInput)
        await copy.prompt("2")
        await pause("ask")
        last = await copy.prompt("3")
        told = [texts(await one.history()) for one in (copy, named, session, bare)]
        return [last.text, (await named.prompt("4")).text, taken, beyond, *told]

    last, other, taken, beyond, copied, named, first, bare = await through(story)
    assert (last, other) == ("Three.", "Two.")
    assert (taken, beyond) == (
        "there is a session 'named' in this execution already; take another name",
        "at: the session has the entries 1 to 6, not 99",
    )
    assert copied == ["1", "One.", "2", "Two.", "3", "Three."]
    assert named == first == ["1", "One."]
    assert bare == []


@pytest.mark.behaviour("harness:session:compact")
async def test_a_workflow_has_its_session_summarised(desk: MakeAgent) -> None:
    def turn(request: ModelRequest) -> Turn:
        return Reply("They talked." if "summarise" in request.system else "so " * 200)

    agent = desk(turn, compaction={"keep_recent_tokens": 100})

    @workflow
    async def story(ctx: Any) -> Any:
        session = await (await ctx.init(agent)).session()
        found = [await session.compact()]
        for text in ("one", "two", "three"):
            await session.prompt(text)
        found.append(await session.compact())
        return [*found, "They talked." in str((await session.history())[0])]

    done = await story.run_async()
    assert done.output == [False, True, True]


@pytest.mark.behaviour("harness:workflow:stream")
async def test_a_workflow_sees_what_happens_and_remembers_the_answer(desk: MakeAgent) -> None:
    agent = desk([Reply("One two three."), Reply("Four.")])
    seen: list[Any] = []

    @workflow
    async def story(ctx: Any) -> Any:
        session = await (await ctx.init(agent)).session()
        answers = [event async for event in session.stream("1")]
        seen.append([type(event) for event in answers])
        await pause("ask")
        return [answers[-1].text, (await session.prompt("2")).text]

    assert await through(story) == ["One two three.", "Four."]
    first, again = seen
    assert {Token, AssistantSaid} <= set(first)
    assert len(again) == 1


@pytest.mark.behaviour("harness:workflow:stream")
async def test_a_stream_that_is_left_stops_its_operation(desk: MakeAgent) -> None:
    def turn(request: ModelRequest) -> Turn:
        asked = "work" in str(request.messages[-1])
        return Reply("", calls=(Call("bash", {"command": "sleep 60"}),)) if asked else Reply("Two.")

    agent = desk(turn)

    @workflow
    async def story(ctx: Any) -> Any:
        session = await (await ctx.init(agent)).session()
        stream = session.stream("work")
        while not isinstance(await anext(stream), ToolStarted):
            pass
        await stream.aclose()
        return (await session.prompt("2")).text

    assert (await asyncio.wait_for(story.run_async(), 30)).output == "Two."


@pytest.mark.behaviour("harness:workflow:deleted")
async def test_a_session_is_deleted_and_its_name_is_free(desk: MakeAgent) -> None:
    store = MemorySessionStore()
    agent = desk(REPLIES, persist=store)

    @workflow
    async def story(ctx: Any) -> Any:
        harness = await ctx.init(agent)
        await harness.sessions.delete("never made")
        session = await harness.sessions.create("case")
        exists = await refused(harness.sessions.create("case"), SessionExists)
        await session.prompt("1")
        await harness.sessions.delete("case")
        empty = store.saved == {}
        gone = [
            await refused(session.prompt("2"), SessionNotFound),
            await refused(harness.sessions.get("case"), SessionNotFound),
        ]
        again = await harness.session("case")
        await again.prompt("3")
        await pause("ask")
        return [exists, empty, *gone, (await again.prompt("4")).text, texts(await again.history())]

    exists, _, deleted, missing, answer, told = await through(story)
    assert exists == "there is a session 'case' in this execution already; take another name"
    assert (deleted, missing) == (
        "there is no such session any more; it was deleted",
        "agent desk has no session 'case' in this execution",
    )
    assert (answer, told) == ("Two.", ["3", "One.", "4", "Two."])


@pytest.mark.behaviour("harness:workflow:refused")
async def test_what_cannot_be_is_refused_with_the_reason(desk: MakeAgent) -> None:
    agent = desk([Reply("", calls=(Call("bash", {"command": "sleep 60"}),)), *REPLIES])
    other = await (await init_agent(agent, id="t-1")).session()

    @workflow
    async def story(ctx: Any) -> Any:
        harness = await ctx.init(agent)
        session = await harness.session()
        handle = session.prompt("1")
        await asyncio.sleep(0)
        found = [await refused(one, SessionBusyError) for one in (session.prompt("2"), session.delete())]
        await session.cancel()
        found.append(await refused(handle, AbortError))
        found += [await refused(one, Conflict) for one in (session.respond("x"), session.interrupts())]
        elsewhere = await (await ctx.init(agent, name="other", id="t-1")).session()
        return [*found, await refused(elsewhere.prompt("1"), SessionExists)]

    busy, deleting, aborted, answer, asked, taken = (await story.run_async()).output
    assert busy == deleting
    assert "under way" in busy
    assert aborted == "the operation was aborted: the session was cancelled"
    assert answer == asked
    assert "answered from outside" in asked
    assert "has an open session 'default' for instance 't-1' elsewhere" in taken
    await other.delete()
