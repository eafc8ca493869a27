"""A run that is taken from its worker: attempts grow, fresh owners live, poison in the binding ends."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from flux.events import AssistantSaid, ContextFrozen, ModelFailed, RunFailed
from flux.messages import ModelFailure, TextDelta
from flux.models.base import ModelEvent, ModelRequest
from flux.store import ownership, workers
from flux.store.database import LOCAL, one
from flux.testing import Reply, ScriptedModel
from tests.integration.agents.world import GUARD, World, of, opened


class Held(ScriptedModel):
    """Streams a word and waits; each call takes the next ending: fail, answer, or none."""

    def __init__(self) -> None:
        super().__init__([Reply("never")])
        self.endings: asyncio.Queue[ModelFailure | Reply] = asyncio.Queue()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Say a word, and end when told."""
        yield TextDelta("Well")
        ending = await self.endings.get()
        if isinstance(ending, ModelFailure):
            yield ending
            return
        async for event in ScriptedModel([ending]).stream(request):
            yield event


async def take_away(world: World) -> None:
    """The worker is declared dead; the run goes back and is claimed again."""
    await world.process.database.write(ownership.reap(world.process.worker_id, (0.0,)))
    world.process.dispatch.timers_changed()
    world.process.runner.all_changed()


@asynccontextmanager
async def attempts_of(world: World) -> AsyncIterator["asyncio.Queue[int]"]:
    """The attempts that a reader sees begin."""
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def read() -> None:
        async with aclosing(world.process.sessions.follow(LOCAL, world.id)) as batches:
            async for batch in batches:
                for frame in batch:
                    if frame.type == "token":
                        seen.put_nowait(msgspec.json.decode(frame.data)["attempt"])

    async with asyncio.timeout(GUARD):
        reader = asyncio.create_task(read())
        try:
            yield seen
        finally:
            reader.cancel()


@pytest.mark.behaviour("loop:model:attempts-grow")
async def test_attempts_grow_through_failures_take_overs_and_messages(tmp_path: Path) -> None:
    model = Held()
    async with opened(tmp_path, run_failures=10) as world:
        await world.agent(model)
        await world.start()
        shown = await blows(world, model)
        assert shown == sorted(set(shown))
        log = await world.log()
        ids = {failure.message_id for failure in of(log, ModelFailed)}
        assert ids == {said.message_id for said in of(log, AssistantSaid)}
        assert await world.faults() == []


async def blows(world: World, model: Held) -> list[int]:
    """The attempts that are seen while one call meets one thing after the other."""
    async with attempts_of(world) as seen:
        await world.say("go")
        shown = [await seen.get()]
        for blow in ("take over", "message", "take over", "failure", "message", "take over"):
            if blow == "message":
                await world.say("by the way", "steer")
                continue
            if blow == "failure":
                model.endings.put_nowait(ModelFailure("busy", "transient", retry_after=-1.0))
            else:
                await take_away(world)
            shown.append(await seen.get())
        model.endings.put_nowait(Reply("there it is"))
        await world.rest()
    return shown


@pytest.mark.behaviour("durability:worker:fresh-owner")
async def test_a_worker_that_has_just_claimed_is_alive(world: World) -> None:
    model = Held()
    await world.agent(model)
    await world.start("go")
    await world.rest("running")
    worker = (await world.row()).worker
    assert worker is not None
    assert not await world.process.database.read(workers.silent(worker, 5.0))
    model.endings.put_nowait(Reply("done"))
    await world.rest()


@pytest.mark.behaviour("durability:worker:poison")
async def test_a_run_that_dies_while_its_agent_is_bound_fails_too(tmp_path: Path) -> None:
    async with opened(tmp_path, run_failures=2) as world:
        await world.agent([Reply("never")], tools=["read_file"])
        id = await world.start()
        await world.process.database.write(one("update executions set failures = 2 where id = :id", id=id))
        log = await world.ask("go")
        (failed,) = of(log, RunFailed)
        assert "failed 2 times" in failed.message
        assert of(log, ContextFrozen) == []  # nothing was bound once more
        assert await world.faults() == []
