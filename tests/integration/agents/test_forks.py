"""Forks: a copy of the beginning of a session, which goes on by itself."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from flux.agents.history.prompt import build
from flux.agents.history.transcript import Transcript
from flux.agents.service.forking import fork_steps, plan_fork
from flux.engine.intake.inputs import NewMessage
from flux.errors import Conflict, IdempotencyMismatch, InvalidInput, SessionExists, SessionNotFound
from flux.events import (
    RUN_ENDS,
    AssistantSaid,
    Cancelled,
    ChatResponse,
    Forked,
    RunStarted,
    SessionEndedEntry,
    ToolDone,
    UserSaid,
)
from flux.store import executions, interrupts, log
from flux.store.database import LOCAL, Scope, one
from flux.store.forks import Under
from flux.testing import Call, Reply
from flux.tools.base import Tool
from flux.tools.function import tool_of
from tests.integration.agents.test_random import TOOLS, Chaos, Effects, script
from tests.integration.agents.world import World, of, opened

CUTS = 12


def wiping() -> dict[str, Tool]:
    async def wipe() -> str:
        """Wipe."""
        return "wiped"

    async def long() -> str:
        """Say more than is shown."""
        return "row\n" * 60_000

    return {tool.name: tool for tool in (tool_of(wipe, requires_approval=True), tool_of(long))}


async def fork(world: World, at: int | None = None, **more: Any) -> str:
    return (await world.process.sessions.fork(LOCAL, world.id, at, **more)).id


async def goes_on(world: World, id: str, text: str = "and now") -> list[Any]:
    """The log of a fork after one more message, which it answered."""
    world.id = id
    await world.say(text)
    while await world.rest() != "idle":
        for question in await world.questions():
            await world.answer(question, "approve")
    entries = await world.log()
    assert isinstance(entries[-1], ChatResponse)
    assert await world.questions() == []
    return entries


@pytest.mark.behaviour("fork:any:takes-the-next-message")
@pytest.mark.parametrize("seed", range(3))
async def test_wherever_it_is_cut_a_fork_takes_the_next_message(tmp_path: Path, database_url: str, seed: int) -> None:
    chance = random.Random(f"fork/{seed}")
    effects = Effects(chance)
    async with opened(tmp_path, effects.tools(), database_url=database_url, run_failures=5) as world:
        await world.agent(script(chance), tools=list(TOOLS), max_tool_calls=4)
        id = await world.start()
        async with asyncio.timeout(40):
            chaos = Chaos([world], chance)
            await chaos.befall(id)
            await chaos.settle(id)
        source = await world.stored()
        for at in chance.sample(range(1, len(source) + 1), min(CUTS, len(source))):
            world.id = id
            world.id = forked = await fork(world, at)
            copied = await world.stored()
            assert [(entry.seq, entry.entry) for entry in copied[:at]] == [(e.seq, e.entry) for e in source[:at]]
            assert [entry.seq for entry in copied] == list(range(1, len(copied) + 1))
            assert isinstance(copied[-1].entry, Forked)
            transcript = Transcript().extend(copied)
            assert (transcript.run, transcript.pending) == (None, {})
            build(transcript.items)
            row = await world.row()
            assert (row.state, row.head, row.turns) == ("idle", len(copied), transcript.turns)
            entries = await goes_on(world, forked)
            turns = [entry.turn for entry in of(entries, ChatResponse)]
            assert turns == list(range(1, len(turns) + 1))
            assert (await world.row()).turns == len(turns)
            starts, ends = len(of(entries, RunStarted)), sum(isinstance(entry, RUN_ENDS) for entry in entries)
            assert starts <= ends  # a run that is cancelled before it begins has no start
        world.id = id
        assert await world.stored() == source


@pytest.mark.behaviour("fork:open:left-behind")
async def test_what_is_open_stays_behind(tmp_path: Path, database_url: str) -> None:
    async with opened(tmp_path, wiping(), database_url=database_url) as world:
        calls = [Reply("", calls=(Call("wipe"),)), Reply("", calls=(Call("wipe"),)), Reply("ok")]
        await world.agent(calls, tools=["wipe"])
        id = await world.start("go")
        await world.rest("waiting")
        (question,) = await world.questions()
        await world.answer(question, "approve", always=True)
        await world.rest("idle")
        assert await world.process.database.read(interrupts.grants(LOCAL, id)) == {"wipe"}
        forked = await fork(world)
        assert await world.process.database.read(interrupts.grants(LOCAL, forked)) == frozenset()
        # At the question, with a message that waits behind it.
        asked = next(entry.seq for entry in await world.stored() if getattr(entry.entry, "id", "") == question.id)
        world.id = forked = await fork(world, asked)
        ending = [entry.entry for entry in (await world.stored())[asked:]]
        assert [type(entry) for entry in ending] == [ToolDone, Cancelled, Forked]
        assert [done.outcome for done in ending if isinstance(done, ToolDone)] == ["cancelled"]
        assert await world.questions() == []


@pytest.mark.behaviour("fork:open:left-behind")
async def test_messages_that_no_run_took_up_are_not_answered_in_the_fork(tmp_path: Path) -> None:
    async with opened(tmp_path, wiping()) as world:
        await world.agent([Reply("", calls=(Call("wipe"),)), Reply("first"), Reply("second")], tools=["wipe"])
        await world.start("go")
        await world.rest("waiting")
        await world.say("later")
        await world.say("sooner", "steer")
        forked = await fork(world)
        world.id = forked
        last = (await world.log())[-1]
        assert isinstance(last, Forked)
        assert len(last.dropped) == 2
        await goes_on(world, forked, "something else")
        assert world.prompts()[-1] == [
            "user: go",
            "model:  [wipe]",
            "wipe: [cancelled before it ran]",
            "user: something else",
        ]


@pytest.mark.behaviour("fork:answer:ends-well")
async def test_a_cut_at_an_answer_keeps_it_as_the_end_of_its_run(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.agent([Reply("one"), Reply("two"), Reply("other")])
        await world.ask("a")
        await world.ask("b")
        stored = await world.stored()
        second = [entry.seq for entry in stored if isinstance(entry.entry, AssistantSaid)][1]
        world.id = forked = await fork(world, second)
        assert [type(entry) for entry in (await world.log())[second:]] == [ChatResponse, Forked]
        assert (await world.row()).turns == 2
        await goes_on(world, forked, "c")
        assert world.prompts()[-1] == ["user: a", "model: one", "user: b", "model: two", "user: c"]


@pytest.mark.behaviour("fork:ended:goes-on")
async def test_an_ended_session_goes_on_in_a_fork(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.agent([Reply("one"), Reply("two")])
        await world.ask("a")
        await world.process.sessions.end(LOCAL, world.id)
        world.id = forked = await fork(world)
        assert of(await world.log(), SessionEndedEntry) == []
        await goes_on(world, forked)
        assert world.prompts()[-1] == ["user: a", "model: one", "user: and now"]


@pytest.mark.behaviour("fork:row:own")
async def test_a_fork_is_a_session_of_its_own(tmp_path: Path, database_url: str) -> None:
    async with opened(tmp_path, database_url=database_url) as world:
        await world.agent([Reply("one"), Reply("two")])
        id = await world.start("A title")
        await world.rest()
        before = await world.row()
        assert before.spent.tokens.total > 0
        world.id = await fork(world, name="other")
        row = await world.row()
        assert (row.agent, row.agent_version, row.instance) == (before.agent, before.agent_version, before.instance)
        assert (row.name, row.title, row.driver, row.parent, row.root) == ("other", "A title", None, None, row.id)
        assert row.spent.tokens.total == 0
        world.id = id
        with pytest.raises(SessionExists):
            await fork(world, name="other")
        world.id = await fork(world, 1)
        assert (await world.row()).title is None
        assert (await world.row()).name.startswith("fork-")  # type: ignore[union-attr]
        await world.say("Another title")
        assert (await world.row()).title == "Another title"
        await world.rest()


@pytest.mark.behaviour("fork:refused")
async def test_what_cannot_be_forked_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.agent([Reply("one")])
        await world.ask("a")
        head = (await world.row()).head
        for at in (0, -1, head + 1):
            with pytest.raises(InvalidInput, match=f"entries 1 to {head}"):
                await fork(world, at)
        with pytest.raises(SessionNotFound):
            await world.process.sessions.fork(Scope("default", "somebody"), world.id)
        await world.process.database.write(one("update executions set agent_version = null"))
        with pytest.raises(Conflict, match="lives in the program"):
            await fork(world)


@pytest.mark.behaviour("fork:key:once")
async def test_a_fork_is_made_once_per_key(tmp_path: Path, database_url: str) -> None:
    async with opened(tmp_path, database_url=database_url) as world:
        await world.agent([Reply("one"), Reply("two")])
        await world.ask("a")
        made = await asyncio.gather(*(world.process.sessions.fork(LOCAL, world.id, 3, key="k") for _ in range(5)))
        assert len({one.id for one in made}) == 1
        assert sum(not one.repeated for one in made) == 1
        with pytest.raises(IdempotencyMismatch):
            await world.process.sessions.fork(LOCAL, world.id, 2, key="k")
        await world.process.sessions.end(LOCAL, world.id)
        await world.process.sessions.delete(LOCAL, world.id)
        again = await world.process.sessions.fork(LOCAL, world.id, 3, key="k")
        assert (again.id, again.repeated) == (made[0].id, True)
        assert await world.process.database.read(executions.get(LOCAL, again.id))


@pytest.mark.behaviour("fork:artifacts:readable")
async def test_artifacts_of_copied_entries_outlive_the_source(tmp_path: Path, database_url: str) -> None:
    async with opened(tmp_path, wiping(), database_url=database_url) as world:
        replies = [Reply("", calls=(Call("long"),)), Reply("ok"), Reply("", calls=(Call("long"),)), Reply("ok")]
        await world.agent(replies, tools=["long", "read_file"])
        id = await world.start("go")
        await world.rest()
        head = (await world.row()).head
        await world.ask("more")
        first = of(await world.log(), ToolDone)[0]
        service = world.process.artifacts
        forked = await fork(world, head)
        assert [one.id for one in await service.page(LOCAL, forked)] == [first.artifact]
        world.id = forked
        forked_again = await fork(world)
        world.id = id
        await world.process.sessions.end(LOCAL, id)
        await world.process.sessions.delete(LOCAL, id)
        await world.process.sessions.end(LOCAL, forked)
        await world.process.sessions.delete(LOCAL, forked)
        assert (await service.get(LOCAL, forked_again, first.artifact or ""))[1].startswith(b"row\n")
        path = {"path": f"artifact://{first.artifact}", "limit": 2}
        replies += [Reply("", calls=(Call("read_file", path),)), Reply("ok")]
        done = of(await goes_on(world, forked_again), ToolDone)[-1]
        assert done.outcome == "success"
        assert "row" in done.content
        await world.process.sessions.end(LOCAL, forked_again)
        await world.process.sessions.delete(LOCAL, forked_again)
        assert await world.process.database.read(one("select id from artifacts")) == []
        assert await world.process.database.read(one("select artifact from artifact_links")) == []


@pytest.mark.behaviour("fork:driven:stays-driven")
async def test_a_driven_session_is_forked_under_its_driver_and_once_per_id(tmp_path: Path, database_url: str) -> None:
    async with opened(tmp_path, database_url=database_url) as world:
        await world.agent([Reply("one")])
        await world.ask("a")
        database, row = world.process.database, await world.row()
        await database.write(
            one(
                "update executions set driver = 'd', parent = 'd', root = 'd', pool = 'caller' where id = :id",
                id=row.id,
            )
        )
        planned = await plan_fork(database, LOCAL, row, id="copy", under=Under("d", "d"))
        for repeated in (False, True):
            admitted, _ = await database.write(fork_steps(LOCAL, planned))
            assert (admitted.id, admitted.repeated) == ("copy", repeated)
        copy = await database.read(executions.get(LOCAL, "copy"))
        assert copy is not None
        assert (copy.driver, copy.parent, copy.root, copy.pool) == ("d", "d", "d", "caller")
        assert len(await database.read(log.read(LOCAL, "copy"))) == copy.head
        free = await world.process.sessions.fork(LOCAL, row.id)
        made = await world.process.sessions.get(LOCAL, free.id)
        assert (made.driver, made.parent, made.root, made.pool) == (None, None, free.id, "default")
        await world.process.sessions.send(LOCAL, free.id, NewMessage("b"))
        world.id = free.id
        await world.rest()
        assert of(await world.log(), UserSaid)[-1].parts[0].text == "b"
