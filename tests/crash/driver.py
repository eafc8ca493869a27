"""What a process does before it is killed: opens Flux on a home, plays a scenario, and meets its faults.

A fault is a file `faults/POINT` in the home that says what happens there: `kill`, `stop` or `term`. It
happens once, `kill always` each time. Everything that the judge reads is on disk before a fault strikes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from flux.agents import compaction
from flux.agents.definition import define
from flux.agents.process import Process, open_process
from flux.agents.prompt import PromptBroken, check
from flux.engine.admission import Decision, NewMessage
from flux.errors import InterruptDecided
from flux.messages import AssistantMessage, ModelFailure, TextDelta, TextPart
from flux.models.base import Model, ModelEvent, ModelLimits, ModelRequest
from flux.settings import Settings
from flux.store.database import LOCAL
from flux.store.feed import Cursor
from flux.testing import Call, CrashAt, EffectCounter, Reply, ScriptedModel, kill_self
from flux.tools.base import Tool, ToolContext
from flux.tools.function import tool_of

GUARD = 40.0
MANY = 2000

SCRIPT = (
    Reply(
        "I look first.",
        calls=(Call("look", {"n": 1}), Call("look", {"n": 2}), Call("note", {"n": 3}), Call("pay", {"n": 4})),
    ),
    Reply(calls=(Call("wipe", {"n": 5}), Call("pay", {"n": 6}), Call("look", {"n": 7}))),
    Reply("All is done."),
    Reply("You are welcome."),
)


class Plan(Struct, frozen=True):
    """One process: where, what, and how it is to die. `settings` are those of Flux."""

    home: str
    scenario: str = "chat"
    database: str = ""
    crash: str = ""
    worker: bool = True
    settings: dict[str, Any] = {}


class Stage:
    """What one process has at hand: its plan, the counters the judge reads, and the points it passes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.home = Path(plan.home)
        self.effects = EffectCounter(self.home / "effects")
        self.calls = EffectCounter(self.home / "calls")
        self.seen = EffectCounter(self.home / "seen")
        self.reader_saw = asyncio.Event()
        self.commits = Commits(CrashAt.from_environment({"FLUX_TEST_CRASH_AT": plan.crash}))
        self.process: Process

    def reach(self, point: str) -> None:
        """Pass a point; a fault may be waiting there."""
        path = self.home / "faults" / point
        try:
            fault = path.read_text()
        except FileNotFoundError:
            return
        if not fault.endswith("always"):
            path.unlink()
        match fault.split()[0]:
            case "kill":
                kill_self()
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "term":
                os.kill(os.getpid(), signal.SIGTERM)

    async def until(self, reached: Callable[[], Awaitable[bool]]) -> None:
        """Wait for something that a commit of this process brings about."""
        while True:
            self.commits.happened.clear()
            if await reached():
                return
            await self.commits.happened.wait()

    async def state(self, id: str) -> str:
        """The state of a session's row."""
        return (await self.process.sessions.get(LOCAL, id)).state

    async def until_state(self, id: str, *states: str) -> str:
        """Wait for one of these states."""
        now = ""

        async def reached() -> bool:
            nonlocal now
            now = await self.state(id)
            return now in states

        await self.until(reached)
        return now


class Commits:
    """A commit observer that may kill, and tells the event loop of each commit."""

    def __init__(self, crash: CrashAt) -> None:
        self.crash = crash
        self.happened = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def before(self) -> None:
        self.crash.before()

    def after(self) -> None:
        self.crash.after()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.happened.set)


class RecordingModel(Model):
    """A scripted model that leaves on disk what it was asked, and passes points."""

    name = "crash/test"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._script = ScriptedModel(SCRIPT, name=self.name)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Answer by the script."""
        turn = sum(isinstance(message, AssistantMessage) for message in request.messages)
        self._stage.calls.add("model", turn=turn, problem=_problem(request))
        self._stage.reach(f"model {turn}")
        async with aclosing(self._script.stream(request)) as events:
            async for event in events:
                yield event
                if isinstance(event, TextDelta) and (self._stage.home / "faults" / "streaming").exists():
                    await self._stage.reader_saw.wait()
                    self._stage.reach("streaming")

    async def limits(self) -> ModelLimits:
        """Unknown."""
        return ModelLimits()


class LongModel(RecordingModel):
    """Its window overflows when there is history, until that is a summary."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Overflow, summarise, or answer."""
        if request.system == compaction.SYSTEM:
            self._stage.calls.add("summary")
            self._stage.reach("summary")
            yield said("They said much.")
        elif any(isinstance(message, AssistantMessage) for message in request.messages):
            yield ModelFailure("too long", "overflow")
        else:
            self._stage.calls.add("model", turn=0, problem=_problem(request))
            yield said("Noted.")


class BlockingModel(RecordingModel):
    """Holds every call until as many are under way as there are sessions."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._running = 0
        self._all = asyncio.Event()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Wait for the others, then answer."""
        self._running += 1
        if self._running == MANY:
            self._stage.calls.add("all running")
            self._stage.reach("all running")
            self._all.set()
        await self._all.wait()
        yield said("Done.")


def said(text: str) -> AssistantMessage:
    """An answer without calls."""
    return AssistantMessage((TextPart(text),))


def _problem(request: ModelRequest) -> str:
    try:
        check(request.messages)
    except PromptBroken as error:
        return error.debug
    return ""


def tools(stage: Stage) -> dict[str, Tool]:
    """A tool of each effect; each leaves its effect on disk."""

    def act(name: str, n: int, context: ToolContext) -> str:
        stage.reach(f"before {name}")
        stage.effects.add(name, n=n, call=context.call)
        stage.reach(f"after {name}")
        return f"{name} {n} done"

    async def look(n: int, context: ToolContext) -> str:
        """Look at something."""
        return act("look", n, context)

    async def note(n: int, context: ToolContext) -> str:
        """Write something down."""
        return act("note", n, context)

    async def pay(n: int, context: ToolContext) -> str:
        """Pay something."""
        return act("pay", n, context)

    async def wipe(n: int, context: ToolContext) -> str:
        """Wipe something."""
        return act("wipe", n, context)

    def gate(_: Any) -> bool:
        stage.reach("gate")
        return False

    made = (
        tool_of(look, effect="read", requires_approval=gate),
        tool_of(note, effect="idempotent"),
        tool_of(pay, effect="once"),
        tool_of(wipe, effect="once", requires_approval=True),
    )
    return {tool.name: tool for tool in made}


MODELS: dict[str, Callable[[Stage], Model]] = {"test": RecordingModel, "long": LongModel, "blocking": BlockingModel}


@asynccontextmanager
async def opened(stage: Stage, model: str = "test") -> AsyncIterator[Process]:
    """Flux on the plan's home, with the agent `clerk`."""
    plan = stage.plan
    settings = Settings(home=stage.home / "flux", database_url=plan.database, **plan.settings)
    live = MODELS[model](stage)
    async with open_process(
        settings,
        environment=dict(os.environ),
        workspace=stage.home,
        factories={"crash": lambda _: live},
        tools=tools(stage),
        observer=stage.commits,
        worker=plan.worker,
    ) as process:
        stage.process = process
        fields = {"name": "clerk", "model": "crash/test", "tools": ["look", "note", "pay", "wipe"]}
        await process.agents.put(LOCAL, define(fields), create=True, update=True)
        yield process


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
    scenario.__name__: scenario for scenario in (chat, admit, ask, answer, work, say_more, long, crowd, recover)
}


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
