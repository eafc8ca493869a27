"""A process whose history is compacted before it is killed, and the judge of what it left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from flux.agents.history.prompt import build
from flux.agents.history.transcript import Transcript
from flux.agents.turn import compaction
from flux.engine.intake.inputs import NewMessage
from flux.events import ChatResponse, CompactDone, Compacted, ToolDone
from flux.messages import ToolResult, UserMessage, text_of
from flux.models.base import ModelEvent, ModelLimits, ModelRequest
from flux.store import artifacts, log
from flux.store.artifacts import Artifact
from flux.store.database import LOCAL
from flux.store.opening import open_database
from flux.testing import Call, Reply, ScriptedModel
from flux.tools.base import Tool, ToolContext
from flux.tools.function import tool_of
from tests.crash import actors, judge
from tests.crash.opening import opened
from tests.crash.stage import Stage

LONG = "\n".join(f"row {n}" for n in range(5_000))
DONE = "All is done. " * 200


class CompactingModel(actors.RecordingModel):
    """Has a small window, and goes on by what stands last in the prompt."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Summarise, or do the next thing."""
        if request.system in (compaction.SYSTEM, compaction.TURN_SYSTEM):
            yield actors.said("They did much.")
            return
        self._stage.calls.add("model", turn=0, problem=actors.problem_of(request))
        async for event in ScriptedModel(_next).stream(request):
            yield event

    async def limits(self) -> ModelLimits:
        """A few pages."""
        return ModelLimits(context=3_000)


def _next(request: ModelRequest) -> Reply:
    last = request.messages[-1]
    if isinstance(last, ToolResult):
        return Reply("", calls=(Call("pay"),)) if last.call.name == "tell" else Reply(DONE)
    thanks = isinstance(last, UserMessage) and text_of(last.parts) == "Thank you."
    return Reply("You are welcome.") if thanks else Reply("", calls=(Call("tell"),))


def tools(stage: Stage) -> dict[str, Tool]:
    """What it does."""

    async def tell(context: ToolContext) -> str:
        """Say much."""
        stage.effects.add("tell", n=1, call=context.call)
        return LONG

    async def pay(context: ToolContext) -> str:
        """Pay something."""
        stage.effects.add("pay", n=1, call=context.call)
        return "paid"

    return {"tell": tool_of(tell, effect="read"), "pay": tool_of(pay, effect="once")}


#: An agent whose window is small.
KEEPER = {
    "name": "keeper",
    "model": "crash/test",
    "tools": ["tell", "pay"],
    "compaction": {"keep_recent_tokens": 300},
}


async def compacting(stage: Stage) -> None:
    """A huge result in a small window, a request to compact, and one more message."""
    async with opened(stage, CompactingModel(stage), tools(stage), KEEPER) as process:
        sessions = process.sessions
        id = (await sessions.start(LOCAL, "keeper", NewMessage("Do it."), instance="desk", key="first")).id
        await stage.until_state(id, "idle")
        await sessions.compact(LOCAL, id, key="compact")
        await stage.until_state(id, "idle")
        await sessions.send(LOCAL, id, NewMessage("Thank you."), key="second")
        await stage.until_state(id, "idle")


def faults(home: Path, database: str = "") -> list[str]:
    """What is wrong with a home in which `compacting` has come to its end."""
    found = judge.session(home, database)
    wrong = judge.faults(found)
    counts = [len(found.entries(kind)) for kind in (ChatResponse, CompactDone, Compacted)]
    wrong += [] if counts == [2, 1, 2] else [f"{counts} answers, requests done and compactions"]
    wrong += [] if found.entries(ChatResponse)[-1].turn == 2 else ["the turns are miscounted"]
    paid = sum(effect.name == "pay" for effect in judge.effects(home))
    outcome = next(done.outcome for done in found.entries(ToolDone) if done.name == "pay")
    wrong += [] if paid == 1 or (paid == 0 and outcome == "interrupted") else [f"paid {paid} times"]
    kept, same = asyncio.run(_kept(database or f"sqlite:///{home / 'flux' / 'flux.db'}", found.row.id))
    wrong += [] if [one.size for one in kept] == [len(LONG)] else [f"{kept} is kept"]
    wrong += [] if same else ["the log from its last compaction on comes to something else than the whole"]
    return wrong + [call.detail["problem"] for call in judge.calls(home) if call.detail.get("problem")]


async def _kept(url: str, id: str) -> tuple[list[Artifact], bool]:
    """The artifacts, and whether both ways of reading the log come to the same."""
    database = await open_database(url)
    try:
        short = Transcript().extend(await database.read(log.resume(LOCAL, id)))
        whole = Transcript().extend(await database.read(log.load(LOCAL, id)))
        same = short.base() == whole.base() and build(short.items) == build(whole.items)
        return await database.read(artifacts.page(LOCAL, id)), same
    finally:
        await database.close()
