"""What a process does before it is killed: it opens Flux on a home and plays a scenario."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path

import msgspec

from flux.agents.process import Process
from flux.engine.intake.answers import Decision
from flux.engine.intake.inputs import NewMessage
from flux.errors import InterruptDecided
from flux.store.database import LOCAL
from flux.store.feed import Cursor
from tests.crash import compacting, harnesses, hooks, opening, planning, roles
from tests.crash.actors import MANY, MODELS, tools
from tests.crash.flows import FLOWS
from tests.crash.stage import Plan, Stage
from tests.crash.talks import conversation

#: Seconds a process may take.
GUARD = 40.0


CLERK = {"name": "clerk", "model": "crash/test", "tools": ["look", "note", "pay", "wipe"]}
HAND = {**CLERK, "name": "hand", "description": "does it"}
#: The agent `clerk` where it is another one, by its model.
CLERKS = {"family": {**CLERK, "tools": ["pay"], "subagents": [HAND]}}


def opened(stage: Stage, model: str = "test") -> AbstractAsyncContextManager[Process]:
    """Flux on the plan's home, with the agent `clerk`."""
    return opening.opened(stage, MODELS[model](stage), tools(stage), CLERKS.get(model, CLERK))


async def start(stage: Stage, text: str = "Do it.") -> str:
    """The one session of this home; starts it the first time."""
    admitted = await stage.process.sessions.start(LOCAL, "clerk", NewMessage(text), instance="desk", key="first")
    return admitted.id


async def approve(stage: Stage, id: str, decision: str = "approve") -> None:
    """Answer every open question."""
    for question in await stage.process.sessions.interrupts(LOCAL, id):
        await stage.process.sessions.answer(LOCAL, id, question.id, Decision(decision))


async def rest(stage: Stage, id: str) -> None:
    """Go on, approving whatever is asked, until the session is idle."""
    while await stage.until_state(id, "waiting", "idle", "ended") == "waiting":
        await approve(stage, id)


async def chat(stage: Stage) -> None:
    """Two messages, the second while the first is worked on, and an approval."""
    async with opened(stage) as process:
        id = await start(stage)
        await process.sessions.send(LOCAL, id, NewMessage("Thank you."), key="second")
        await rest(stage, id)


async def admit(stage: Stage) -> None:
    """One message, admitted and left."""
    async with opened(stage):
        await start(stage)


async def ask(stage: Stage) -> None:
    """Until a question is open and the session waits for it."""
    async with opened(stage):
        id = await start(stage)
        await stage.until_state(id, "waiting")
        stage.reach("waiting")


async def answer(stage: Stage) -> None:
    """Answer the open question, and then once more with the opposite."""
    async with opened(stage) as process:
        id = await start(stage)
        (question,) = await process.sessions.interrupts(LOCAL, id)
        stage.calls.add("found", state=await stage.state(id))
        await process.sessions.answer(LOCAL, id, question.id, Decision("approve"))
        try:
            await process.sessions.answer(LOCAL, id, question.id, Decision("reject"))
        except InterruptDecided as error:
            stage.calls.add("refused", status=error.status)


async def work(stage: Stage) -> None:
    """One message, followed by a reader that keeps on disk what it sees and where it is."""
    async with opened(stage), asyncio.TaskGroup() as tasks:
        id = await start(stage)
        reader = tasks.create_task(follow(stage, id))
        await rest(stage, id)
        reader.cancel()


async def follow(stage: Stage, id: str) -> None:
    """Read a session from where the last reader stopped."""
    before = stage.seen.read()
    cursor = Cursor.parse(before[-1].detail["cursor"]) if before else Cursor()
    async with aclosing(stage.process.sessions.follow(LOCAL, id, cursor)) as batches:
        async for batch in batches:
            stage.commits.happened.set()
            for frame in batch:
                data = msgspec.json.decode(frame.data)
                shown = {key: data[key] for key in ("attempt", "message_id", "text", "seq", "epoch") if key in data}
                stage.seen.add(frame.type, cursor=str(frame.cursor), **shown)
                if frame.type == "token":
                    stage.reader_saw.set()


async def say_more(stage: Stage) -> None:
    """Another message to the session, whatever it has been through."""
    async with opened(stage) as process:
        id = await start(stage)
        await rest(stage, id)
        await process.sessions.send(LOCAL, id, NewMessage("Are you there?"), key="more")
        await rest(stage, id)


async def long(stage: Stage) -> None:
    """A conversation that has to be summarised."""
    async with opened(stage, "long") as process:
        id = await start(stage)
        await process.sessions.send(LOCAL, id, NewMessage("And more."), key="second")
        await rest(stage, id)


async def family(stage: Stage) -> None:
    """An agent that delegates, and an approval that the other one needs."""
    async with opened(stage, "family"):
        await rest(stage, await start(stage))


async def crowd(stage: Stage) -> None:
    """Very many sessions, all with a model call under way at the same time."""
    async with opened(stage, "blocking") as process:
        starts = (
            process.sessions.start(LOCAL, "clerk", NewMessage("Go."), instance=str(n), key=str(n)) for n in range(MANY)
        )
        await asyncio.gather(*starts)
        await all_idle(stage)


async def recover(stage: Stage) -> None:
    """Nothing but what is there already."""
    async with opened(stage, "blocking"):
        await all_idle(stage)


async def all_idle(stage: Stage) -> None:
    """Until no session has work."""

    async def reached() -> bool:
        busy = [await stage.process.sessions.page(LOCAL, state=state, limit=1) for state in ("running", "scheduled")]
        return not any(busy)

    await stage.until(reached)


SCENARIOS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    scenario.__name__: scenario for scenario in (chat, admit, ask, answer, work, say_more, long, family, crowd, recover)
} | FLOWS
SCENARIOS |= planning.SCENARIOS | hooks.SCENARIOS | roles.SCENARIOS | harnesses.SCENARIOS
SCENARIOS["conversation"] = conversation
SCENARIOS["compacting"] = compacting.compacting


async def play(plan: Plan) -> None:
    """Play a plan's scenario; SIGTERM leaves in good order."""
    task = asyncio.current_task()
    stage = Stage(plan)
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        async with asyncio.timeout(GUARD):
            await SCENARIOS[plan.scenario](stage)
    except asyncio.CancelledError:
        stage.calls.add("terminated")
        return
    stage.calls.add("finished", commits=stage.commits.crash.commits)


def run(plan: Plan) -> None:
    """Be the process."""
    Path(plan.home).mkdir(parents=True, exist_ok=True)
    log = os.open(Path(plan.home) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.INFO, force=True)
    asyncio.run(play(plan))
