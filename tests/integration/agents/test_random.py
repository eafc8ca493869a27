"""People and crashes do anything at any time; at rest, everything is accounted for exactly once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import get_args

import pytest

from flux.agents.history.transcript import Transcript
from flux.engine.intake.answers import Decision
from flux.engine.intake.inputs import NewMessage
from flux.errors import InterruptDecided, SessionBusy
from flux.events import Entry, Mode, Stored, ToolDone, UserSaid
from flux.models.base import ModelRequest
from flux.store import log, ownership
from flux.store.database import LOCAL
from flux.testing import Call, Reply, ScriptedModel
from flux.tools.base import Tool, ToolContext
from flux.tools.function import tool_of
from tests.crash.judge import log_faults
from tests.integration.agents.world import Committed, World, opened

SESSIONS = 3
DEEDS = 40
TOOLS = ("look", "pay", "wipe", "break_")


class Effects:
    """Tools that count what they do, and take a moment."""

    def __init__(self, chance: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self._chance = chance

    async def act(self, context: ToolContext) -> str:
        """Do it, sooner or later."""
        for _ in range(self._chance.randrange(4)):
            await asyncio.sleep(0)
        self.counts[context.call] += 1
        return "done"

    def tools(self) -> dict[str, Tool]:
        """A tool of each kind."""

        async def look(context: ToolContext) -> str:
            """Look."""
            return await self.act(context)

        async def pay(context: ToolContext) -> str:
            """Pay."""
            return await self.act(context)

        async def wipe(context: ToolContext) -> str:
            """Wipe."""
            return await self.act(context)

        async def break_(context: ToolContext) -> str:
            """Fail."""
            await self.act(context)
            raise OSError

        made = (tool_of(look, effect="read"), tool_of(pay), tool_of(wipe, requires_approval=True), tool_of(break_))
        return {tool.name: tool for tool in made}


class Chaos:
    """Some processes on one database, and what befalls their sessions."""

    def __init__(self, worlds: Sequence[World], chance: random.Random) -> None:
        self._worlds = worlds
        self._chance = chance
        self.accepted: dict[str, int] = {}

    async def befall(self, id: str) -> None:
        """One thing after the other happens to a session."""
        for _ in range(DEEDS):
            world = self._chance.choice(self._worlds)
            for _ in range(self._chance.randrange(6)):
                await asyncio.sleep(0)
            deed = self._chance.choices((self._say, self._cancel, self._answer, self._crash), (5, 1, 3, 1))[0]
            await deed(world, id)

    async def _say(self, world: World, id: str) -> None:
        mode: Mode = self._chance.choice(get_args(Mode))
        try:
            await world.process.sessions.send(LOCAL, id, NewMessage("hello", mode))
        except SessionBusy:
            assert mode == "reject"
        else:
            self.accepted[id] = self.accepted.get(id, 0) + 1

    async def _cancel(self, world: World, id: str) -> None:
        await world.process.sessions.cancel(LOCAL, id)

    async def _answer(self, world: World, id: str) -> None:
        for question in await world.process.sessions.interrupts(LOCAL, id):
            decision = Decision(self._chance.choice(("approve", "approve", "reject")))
            try:
                await world.process.sessions.answer(LOCAL, id, question.id, decision)
            except InterruptDecided:
                continue  # its run was stopped meanwhile

    async def _crash(self, world: World, id: str) -> None:
        """Everything a worker runs is taken from it, as if it had died or been frozen."""
        dead = self._chance.choice(self._worlds)
        await world.process.database.write(ownership.reap(dead.process.worker_id, (0.0,)))
        world.process.dispatch.timers_changed()

    async def settle(self, id: str) -> None:
        """Answer what is asked until the session is idle."""
        world = self._worlds[0]
        world.id = id
        while await world.rest() != "idle":
            await self._answer(world, id)


def script(chance: random.Random) -> ScriptedModel:
    """A model that asks for a few calls or answers, as it likes."""

    def turn(request: ModelRequest) -> Reply:
        if request.final or chance.random() < 0.5:
            return Reply("that is my answer")
        return Reply("I will", calls=tuple(Call(chance.choice(TOOLS)) for _ in range(chance.randint(1, 3))))

    return ScriptedModel(turn)


def effect_faults(stored: Sequence[Stored], effects: Effects) -> list[str]:
    done = [entry.entry for entry in stored if isinstance(entry.entry, ToolDone)]
    wrong = [f"{d.name} has no effect" for d in done if d.outcome == "success" and not effects.counts[d.call]]
    twice = [d for d in done if d.name != "look" and effects.counts[d.call] > 1]
    return wrong + [f"{d.name} took effect {effects.counts[d.call]} times" for d in twice]


@pytest.mark.behaviour("loop:random:exactly-once")
@pytest.mark.behaviour("store:log:load")
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_each_message_is_consumed_once_and_each_run_ends_once(
    tmp_path: Path, database_url: str, seed: int, processes: int
) -> None:
    chance = random.Random(f"{seed}/{processes}")
    effects, committed = Effects(chance), Committed()
    async with AsyncExitStack() as stack:
        worlds = [
            await stack.enter_async_context(
                opened(tmp_path, effects.tools(), committed=committed, database_url=database_url, run_failures=5)
            )
            for _ in range(processes)
        ]
        for world in worlds:
            await world.agent(script(chance), tools=list(TOOLS), max_tool_calls=4)
        chaos = Chaos(worlds, chance)
        ids = [await worlds[0].start() for _ in range(SESSIONS)]
        async with asyncio.timeout(40):
            await asyncio.gather(*(chaos.befall(id) for id in ids))
            for id in ids:
                await chaos.settle(id)
        for id in ids:
            worlds[0].id = id
            assert await worlds[0].faults() == []
            stored = await worlds[0].stored()
            assert effect_faults(stored, effects) == []
            loaded = await worlds[0].process.database.read(log.load(LOCAL, id))
            assert vars(Transcript().extend(loaded)) == vars(Transcript().extend(stored))
            assert [entry.seq for entry in stored] == list(range(1, len(stored) + 1))
            assert sum(isinstance(entry.entry, UserSaid) for entry in stored) == chaos.accepted.get(id, 0)
            assert log_faults([entry.entry for entry in stored if isinstance(entry.entry, Entry)]) == []
