"""A process that plans before it is killed, and the judge of what it left: the plan in the log, and the artifact."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from flux.agents.process import Process
from flux.engine.intake.answers import Decision
from flux.engine.intake.inputs import NewMessage
from flux.errors import InterruptDecided
from flux.events import ChatResponse, Entry, InterruptAnswered, Planned, PlanReview, ToolDone
from flux.store import artifacts
from flux.store.artifacts import Artifact
from flux.store.database import LOCAL
from flux.store.opening import open_database
from flux.testing import Call, Reply, ScriptedModel
from flux.tools.base import Tool, ToolContext
from flux.tools.function import tool_of
from tests.crash import actors, judge, opening
from tests.crash.stage import Stage

FIRST = [{"name": "count"}, {"name": "pay", "depends_on": ["count"]}, {"name": "file", "depends_on": ["pay"]}]
SCRIPT = (
    Reply("A plan.", calls=(Call("create_plan", {"steps": FIRST}), Call("get_plan"))),
    Reply(
        calls=(
            Call("start_step", {"step": "count"}),
            Call("tell"),
            Call("mark_step_done", {"step": "count", "result": "many"}),
            Call("start_step", {"step": "pay"}),
            Call("pay"),
            Call("mark_step_done", {"step": "pay", "result": "paid"}),
        )
    ),
    Reply(
        calls=(Call("start_step", {"step": "file"}), Call("mark_step_failed", {"step": "file", "reason": "no drawer"}))
    ),
    Reply("Another way.", calls=(Call("create_plan", {"steps": [{"name": "box"}]}),)),
    Reply(calls=(Call("mark_step_done", {"step": "box", "result": "boxed"}),)),
    Reply("All is done."),
)
#: Every state of the plan, in order, by the first letters of its steps' states.
PLANS = ["ppp", "rpp", "dpp", "drp", "ddp", "ddr", "ddf", "ddfp", "ddfd"]
LONG = "\n".join(f"row {n}" for n in range(20_000))


class PlanningModel(actors.RecordingModel):
    """Plans by the script."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._script = ScriptedModel(SCRIPT, name=self.name)

    async def preload(self) -> None:
        """A script is ready at once."""


def tools(stage: Stage) -> dict[str, Tool]:
    """What the steps do."""

    async def tell(context: ToolContext) -> str:
        """Say more than is shown."""
        stage.effects.add("tell", n=1, call=context.call)
        return LONG

    async def pay(context: ToolContext) -> str:
        """Pay something."""
        stage.effects.add("pay", n=1, call=context.call)
        return "paid"

    return {"tell": tool_of(tell, effect="idempotent"), "pay": tool_of(pay, effect="once")}


#: An agent that plans.
PLANNER = {
    "name": "planner",
    "model": "crash/test",
    "tools": ["tell", "pay"],
    "planning": True,
    "approve_plan": True,
}


def opened(stage: Stage) -> AbstractAsyncContextManager[Process]:
    """Flux on the plan's home, with an agent that plans."""
    return opening.opened(stage, PlanningModel(stage), tools(stage), PLANNER)


async def start(stage: Stage) -> str:
    """The one session of this home; starts it the first time."""
    admitted = await stage.process.sessions.start(LOCAL, "planner", NewMessage("Do it."), instance="desk", key="first")
    return admitted.id


async def planning(stage: Stage) -> None:
    """A plan that is made, approved, worked by, made anew, and approved again."""
    async with opened(stage) as process:
        id = await start(stage)
        while await stage.until_state(id, "waiting", "idle") == "waiting":
            for question in await process.sessions.interrupts(LOCAL, id):
                await process.sessions.answer(LOCAL, id, question.id, Decision("approve"))


async def review(stage: Stage) -> None:
    """Until the first plan waits for its review."""
    async with opened(stage):
        await stage.until_state(await start(stage), "waiting")
        stage.reach("waiting")


async def decide(stage: Stage) -> None:
    """Put another plan in the place of the one under review, and then try to reject it; nobody works here."""
    async with opened(stage) as process:
        id = await start(stage)
        (question,) = await process.sessions.interrupts(LOCAL, id)
        steps = [*FIRST, {"name": "rest"}]
        await process.sessions.answer(LOCAL, id, question.id, Decision("approve", content={"steps": steps}))
        try:
            await process.sessions.answer(LOCAL, id, question.id, Decision("reject"))
        except InterruptDecided as error:
            stage.calls.add("refused", status=error.status)


SCENARIOS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    scenario.__name__: scenario for scenario in (planning, review, decide)
}


def faults(home: Path, database: str = "") -> list[str]:
    """What is wrong with a home in which `planning` has come to its end."""
    found = judge.session(home, database)
    wrong = judge.faults(found)
    plans = ["".join(step["state"][0] for step in plan.steps) for plan in found.entries(Planned)]
    wrong += [] if plans == PLANS else [f"the plan went through {plans}"]
    wrong += _apart([stored.entry for stored in found.log if isinstance(stored.entry, Entry)])
    counts = [len(found.entries(kind)) for kind in (PlanReview, InterruptAnswered, ChatResponse)]
    wrong += [] if counts == [2, 2, 1] else [f"{counts} reviews, answers and ends"]
    paid = sum(effect.name == "pay" for effect in judge.effects(home))
    wrong += [] if paid == 1 or (paid == 0 and _outcome(found, "pay") == "interrupted") else [f"paid {paid} times"]
    kept = asyncio.run(_kept(database or f"sqlite:///{home / 'flux' / 'flux.db'}", found.row.id))
    named = [done.artifact for done in found.entries(ToolDone) if done.name == "tell"]
    if [(one.id, one.size) for one in kept] != [(named[0], len(LONG))]:
        wrong.append(f"{kept} is kept, {named} is named")
    return wrong + [call.detail["problem"] for call in judge.calls(home) if call.detail.get("problem")]


def _apart(entries: list[Entry]) -> list[str]:
    """Changes of the plan that do not stand with the result of the call that made them."""
    return [
        f"a plan is followed by {type(after).__name__}"
        for plan, after in itertools.pairwise(entries)
        if isinstance(plan, Planned) and not (isinstance(after, ToolDone) and after.outcome == "success")
    ]


def _outcome(found: judge.Found, name: str) -> Any:
    return next(done.outcome for done in found.entries(ToolDone) if done.name == name)


async def _kept(url: str, id: str) -> list[Artifact]:
    database = await open_database(url)
    try:
        return await database.read(artifacts.page(LOCAL, id))
    finally:
        await database.close()
