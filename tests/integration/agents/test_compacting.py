"""Compaction in sessions: what a model reads afterwards, what stays in the log, and what happens when it fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux.agents.history import prompt
from flux.agents.history.transcript import Transcript
from flux.errors import Conflict, SessionBusy, SessionEnded
from flux.events import (
    AssistantSaid,
    Cancelled,
    ChatResponse,
    CompactDone,
    Compacted,
    CompactRequested,
    ContextFrozen,
    ModelFailed,
    RunFailed,
    RunStarted,
    ToolDone,
)
from flux.messages import ModelFailure, ToolResult, Usage
from flux.models.base import ModelRequest
from flux.models.scripted import Turn
from flux.store import log
from flux.store.database import LOCAL, Database
from flux.testing import Call, Reply, ScriptedModel
from flux.tools.base import Tool
from flux.tools.function import tool_of
from tests.integration.agents.tools import Bench
from tests.integration.agents.world import World, of, opened

ADDRESS = re.compile(r"artifact://[0-9a-f-]{36}")


def summarises(request: ModelRequest) -> bool:
    """Whether this asks for a summary."""
    return "summarise" in request.system


def talking(answer: Callable[[ModelRequest], Turn], summary: Turn) -> Callable[[ModelRequest], Turn]:
    """A model that writes summaries, and answers otherwise."""
    return lambda request: summary if summarises(request) else answer(request)


def long_tool(length: int = 60_000) -> dict[str, Tool]:
    """A tool that says much, but not too much to be shown."""

    async def rows() -> str:
        """Say much."""
        return "\n".join(f"row {n}" for n in range(length // 9))

    return {"rows": tool_of(rows)}


@pytest.mark.behaviour("compaction:spills")
async def test_a_huge_result_in_a_small_window_is_kept_elsewhere_and_read_on(tmp_path: Path) -> None:
    def answer(request: ModelRequest) -> Turn:
        results = [message for message in request.messages if isinstance(message, ToolResult)]
        if not results:
            return Reply("", calls=(Call("rows"),))
        if len(results) == 1:
            assert len(results[0].content) < 4_000
            place = {"path": ADDRESS.findall(results[0].content)[-1], "offset": 3_000, "limit": 1}
            return Reply("", calls=(Call("read_file", place),))
        return Reply(f"it says {results[-1].content}")

    async with opened(tmp_path, long_tool()) as world:
        await world.agent(talking(answer, Reply("They look.")), tools=["rows"], context=8_000)
        entries = await world.ask("Find row 3000.")
        (made,) = of(entries, Compacted)
        assert (made.asked, made.turn, list(made.spilled)) == ("Find row 3000.", "", [of(entries, ToolDone)[0].call])
        assert "row 3000\n" in of(entries, ToolDone)[0].content
        assert "row 3000" in of(entries, ChatResponse)[-1].content
        assert await world.faults() == []


@pytest.mark.behaviour("compaction:overflow:twice")
async def test_a_prompt_that_is_still_refused_is_compacted_once_more_with_less(world: World) -> None:
    def answer(request: ModelRequest) -> Turn:
        told = sum(len(text) for text in world.prompts()[-1])
        return ModelFailure("context too long", "overflow") if told > 6_000 else Reply("so " * 200)

    await world.agent(talking(answer, Reply("They talked.")))
    for n in range(12):
        entries = await world.ask(f"tell {n} " + "more " * 200)
    assert len(of(entries, ChatResponse)) == 12
    assert of(entries, RunFailed) == []
    assert len(of(entries, Compacted)) > 1
    refused = of(entries, ModelFailed)
    assert {failed.kind for failed in refused} == {"overflow"}
    assert await world.faults() == []


@pytest.mark.behaviour("compaction:overflow:same-call")
@pytest.mark.parametrize("compaction", [False, {"keep_recent_tokens": 10}])
async def test_after_an_overflow_the_same_call_is_made_again_with_what_joined_it(world: World, compaction: Any) -> None:
    await world.agent(
        talking(
            lambda request: (
                ModelFailure("context too long", "overflow") if len(request.messages) > 3 else Reply("good answer")
            ),
            Reply("They greeted.", usage=Usage(7, 3)),
        ),
        compaction=compaction,
    )
    await world.ask("one")
    await world.ask("two")
    entries = await world.ask("three")
    (failed,), said = of(entries, ModelFailed), of(entries, AssistantSaid)
    assert said[-1].message_id == failed.message_id
    assert of(entries, ChatResponse)[-1].content == "good answer"
    assert of(entries, RunStarted)[-1].inputs == (of(entries, RunStarted)[-1].inputs[0],)
    assert (await world.row()).spent.tokens.total == sum(one.usage.total for one in said) + 10
    assert await world.faults() == []


@pytest.mark.behaviour("compaction:fails:usable")
async def test_when_the_summary_fails_that_is_told_and_the_next_message_goes_on(world: World) -> None:
    summary: list[Turn] = [ModelFailure("no credit left", "rejected")]

    def answer(request: ModelRequest) -> Turn:
        return ModelFailure("too long", "overflow") if len(request.messages) > 4 else Reply("hello")

    await world.agent(lambda request: summary[0] if summarises(request) else answer(request))
    for text in ("one", "two", "three"):
        entries = await world.ask(text)
    (failed,) = of(entries, RunFailed)
    assert failed.retryable
    assert "too long for the model, and summarising the conversation failed: no credit left" in failed.message
    assert of(entries, Compacted) == []
    assert await world.faults() == []
    summary[0] = Reply("They greeted.")
    entries = await world.ask("four")
    assert len(of(entries, ChatResponse)) == 3
    assert await world.faults() == []


@pytest.mark.behaviour("compaction:own-model")
async def test_the_summary_is_written_by_the_model_that_the_definition_names(world: World) -> None:
    world.models["cheap"] = ScriptedModel([Reply("They greeted.")])
    compaction = {"keep_recent_tokens": 1, "reserve_tokens": 900, "model": "test/cheap"}
    await world.agent([Reply("hello", usage=Usage(90, 20))], context=1000, compaction=compaction)
    await world.ask("one")
    entries = await world.ask("two")
    assert [made.summary for made in of(entries, Compacted)] == ["They greeted."]
    assert not any(summarises(request) for request in world.model.requests)
    assert len(world.models["cheap"].requests) == 1


@pytest.mark.behaviour("compaction:verbatim")
async def test_a_skill_that_was_used_is_still_in_force_after_its_call_was_summarised(world: World) -> None:
    def answer(request: ModelRequest) -> Turn:
        if len(request.messages) > 5:
            return ModelFailure("too long", "overflow")
        used = "tiling" in request.system and not any("Lay them" in text for text in world.prompts()[-1])
        return Reply("", calls=(Call("use_skill", {"name": "tiling"}),)) if used else Reply("done")

    skill = {"name": "tiling", "description": "How to lay tiles.", "instructions": "Lay them straight."}
    await world.agent(talking(answer, Reply("They tiled.")), skills=[skill], compaction={"keep_recent_tokens": 1})
    for text in ("one", "two", "three", "four"):
        entries = await world.ask(text)
    assert len(of(entries, ToolDone)) == 1
    assert len(of(entries, Compacted)) >= 1
    assert "Skill in force: tiling" in world.prompts()[-1][0]
    assert "Lay them straight." in world.prompts()[-1][0]


async def said_much(world: World, turns: int, **fields: Any) -> None:
    """A session with this many turns, each about 250 tokens long."""
    await world.agent(talking(lambda _: Reply("so " * 150), Reply("They talked.")), **fields)
    for n in range(turns):
        await world.ask(f"number {n} " + "and " * 120)


@pytest.mark.behaviour("compaction:asked")
async def test_who_asks_gets_a_summary_of_all_but_the_newest(world: World) -> None:
    await said_much(world, 4, compaction={"keep_recent_tokens": 300})
    admitted = await world.process.sessions.compact(LOCAL, world.id, key="k")
    assert await world.rest("idle") == "idle"
    again = await world.process.sessions.compact(LOCAL, world.id, key="k")
    assert (again.seq, again.repeated) == (admitted.seq, True)
    entries = await world.log()
    (asked,), (made,) = of(entries, CompactRequested), of(entries, Compacted)
    assert asked.by == LOCAL.principal
    assert of(entries, RunStarted)[-1].inputs == (asked.id,)
    assert of(entries, CompactDone) == [CompactDone()]
    assert (await world.row()).turns == 4
    entries = await world.ask("and?")
    told = world.prompts()[-1]
    assert told[0].startswith("user: Summary of the conversation so far:\n\nThey talked.")
    assert not any("number 0" in text for text in told)
    assert of(entries, ChatResponse)[-1].turn == 5
    assert made.upto < admitted.seq
    assert await world.faults() == []


@pytest.mark.behaviour("compaction:asked:nothing")
async def test_asking_without_history_is_no_error(world: World) -> None:
    await world.agent([Reply("hi")])
    await world.start()
    await world.process.sessions.compact(LOCAL, world.id)
    await world.rest("idle")
    assert of(await world.log(), CompactDone) == [CompactDone(compacted=False)]
    await world.ask("hello")
    await world.process.sessions.compact(LOCAL, world.id)
    await world.rest("idle")
    entries = await world.log()
    assert of(entries, CompactDone)[1:] == [CompactDone(compacted=False)]
    assert of(entries, Compacted) == []
    assert len(world.model.requests) == 1
    assert await world.faults() == []


@pytest.mark.behaviour("compaction:asked:refused")
async def test_a_session_that_works_or_has_ended_is_not_compacted(world: World, bench: Bench) -> None:
    await world.agent([Reply("", calls=(Call("hold"),)), Reply("done")], tools=["hold"])
    await world.start("go")
    await bench.begun.wait()
    with pytest.raises(SessionBusy):
        await world.process.sessions.compact(LOCAL, world.id)
    bench.go.set()
    await world.rest("idle")
    await world.process.sessions.end(LOCAL, world.id)
    with pytest.raises(SessionEnded):
        await world.process.sessions.compact(LOCAL, world.id)
    assert issubclass(SessionBusy, Conflict)


@pytest.mark.behaviour("compaction:asked:fails")
async def test_a_requested_summary_that_fails_says_so_and_changes_nothing(world: World) -> None:
    world.models["broken"] = ScriptedModel([ModelFailure("no credit left", "rejected")])
    await said_much(world, 3, compaction={"keep_recent_tokens": 100, "model": "test/broken"})
    await world.process.sessions.compact(LOCAL, world.id)
    await world.rest("idle")
    entries = await world.log()
    (failed,) = of(entries, RunFailed)
    assert failed == RunFailed(message="summarising the conversation failed: no credit left")
    assert (await world.row()).last_error == failed.message
    await world.ask("go on")
    assert len(world.prompts()[-1]) == 7
    assert await world.faults() == []


@pytest.mark.behaviour("compaction:asked:stopped")
async def test_a_summary_under_way_can_be_stopped_and_messages_wait_for_it(world: World) -> None:
    world.models["slow"] = ScriptedModel([Reply("one two")], delay=3600)
    await said_much(world, 3, compaction={"keep_recent_tokens": 100, "model": "test/slow"})
    await world.process.sessions.compact(LOCAL, world.id)
    await world.until_entry(RunStarted, 4)
    await world.say("and then?")
    await world.cancel()
    await world.rest("idle")
    entries = await world.log()
    assert len(of(entries, Cancelled)) == 1
    assert of(entries, Compacted) == []
    assert of(entries, ChatResponse)[-1].turn == 4
    assert await world.faults() == []


@pytest.mark.behaviour("compaction:read-from-the-last")
async def test_another_process_reads_a_long_session_from_its_last_compaction_on(
    tmp_path: Path, database_url: str
) -> None:
    async with opened(tmp_path, database_url=database_url) as world:
        await said_much(world, 16, compaction={"keep_recent_tokens": 500}, planning=True)
        await world.process.sessions.compact(LOCAL, world.id)
        await world.rest("idle")
        database = world.process.database
        assert (await world.row()).head > 50
        whole = await database.read(log.load(LOCAL, world.id))
        short = await database.read(log.resume(LOCAL, world.id))
        assert len(short) < len(whole) / 3
        assert isinstance(short[0].entry, Compacted)
        assert same(Transcript().extend(short), Transcript().extend(whole))
        id, turns = world.id, len(of(await world.log(), ChatResponse))
        found = await world.process.sessions.page(LOCAL, q="number 0")
        assert [row.id for row in found] == [id]
    async with opened(tmp_path, database_url=database_url) as heir:
        heir.id, heir.models["main"] = id, ScriptedModel([Reply("still here")])
        entries = await heir.ask("and now?")
        assert heir.prompts()[-1][0].startswith("user: Summary of the conversation so far:\n\nThey talked.")
        assert of(entries, ChatResponse)[-1].turn == turns + 1
        assert len(of(entries, ContextFrozen)) == 2
        assert await heir.faults() == []


@pytest.mark.behaviour("compaction:undone")
async def test_a_fork_from_before_the_summary_undoes_it_and_one_from_behind_goes_on_by_it(
    tmp_path: Path, database_url: str
) -> None:
    async with opened(tmp_path, database_url=database_url) as world:
        await said_much(world, 14, compaction={"keep_recent_tokens": 500})
        await world.process.sessions.compact(LOCAL, world.id)
        await world.rest("idle")
        source = world.id
        (at,) = [one.seq for one in await world.stored() if isinstance(one.entry, Compacted)]
        world.id = (await world.process.sessions.fork(LOCAL, source, at - 1)).id
        await world.ask("as before?")
        assert world.prompts()[-1][0].startswith("user: number 0")
        assert len(world.prompts()[-1]) == 29
        world.id = (await world.process.sessions.fork(LOCAL, source)).id
        database = world.process.database
        short, whole = [await database.read(read(LOCAL, world.id)) for read in (log.resume, log.load)]
        assert len(short) < len(whole)
        assert same(Transcript().extend(short), Transcript().extend(whole))
    async with opened(tmp_path, database_url=database_url) as heir:
        heir.id, heir.models["main"] = world.id, ScriptedModel([Reply("yes")])
        entries = await heir.ask("go on?")
        assert "They talked." in heir.prompts()[-1][0]
        assert of(entries, ChatResponse)[-1].turn == 15
        assert await heir.faults() == []


def same(one: Transcript, other: Transcript) -> bool:
    """Whether two transcripts are told alike and stand alike."""
    fields = ("head", "epoch", "pending", "turns", "tokens", "cost", "plan", "context", "thawed", "run")
    alike = all(getattr(one, name) == getattr(other, name) for name in fields)
    return alike and prompt.build(one.items) == prompt.build(other.items) and one.base() == other.base()


@pytest.mark.behaviour("compaction:read-from-the-last")
async def test_a_log_without_a_compaction_is_read_whole(database: Database) -> None:
    assert await database.read(log.resume(LOCAL, "nowhere")) == []
