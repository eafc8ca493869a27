"""One process with scripted models and tools, and what tests do to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from flux.agents.define.definition import define
from flux.agents.process import Process, open_process
from flux.engine.intake.answers import Decision
from flux.engine.intake.inputs import NewMessage
from flux.events import Entry, Mode, Stored, ToolDone
from flux.messages import AssistantMessage, Message, ToolResult, UserMessage, text_of
from flux.models.scripted import Script
from flux.settings import Settings
from flux.store.database import LOCAL
from flux.store.executions import Execution
from flux.store.interrupts import Interrupt
from flux.testing import ScriptedModel
from flux.tools.base import Tool
from tests.crash.judge import log_faults

GUARD = 20.0
T = TypeVar("T")


class Committed:
    """A commit observer that wakes whoever waits for a commit."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def before(self) -> None:
        """Nothing."""

    def after(self) -> None:
        """Wake them."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.event.set)


class World:
    """A process, its scripted models by name, and one session at a time."""

    def __init__(self, process: Process, models: dict[str, ScriptedModel], committed: Committed) -> None:
        self.process = process
        self.models = models
        self.id = ""
        #: Who starts sessions, and asks and answers.
        self.scope = LOCAL
        self._committed = committed

    @property
    def model(self) -> ScriptedModel:
        """The model `test/main`."""
        return self.models["main"]

    async def agent(self, script: Script | ScriptedModel, **fields: Any) -> None:
        """The agent `agent`, whose model follows a script; once in a test."""
        context = fields.pop("context", None)
        self.models["main"] = script if isinstance(script, ScriptedModel) else ScriptedModel(script, context=context)
        made = define({"name": "agent", "model": "test/main", **fields})
        await self.process.agents.put(LOCAL, made, create=True, update=True)

    async def start(self, text: str | None = None) -> str:
        """Start a session; the other methods are about it."""
        message = None if text is None else NewMessage(text)
        self.id = (await self.process.sessions.start(self.scope, "agent", message)).id
        return self.id

    async def say(self, text: str, mode: Mode = "queue") -> None:
        """Send a message."""
        await self.process.sessions.send(self.scope, self.id, NewMessage(text, mode))

    async def ask(self, text: str) -> list[Entry]:
        """Send a message, wait for the rest, and return the whole log."""
        if not self.id:
            await self.start(text)
        else:
            await self.say(text)
        await self.rest()
        return await self.log()

    async def cancel(self) -> None:
        """Ask the run to stop."""
        await self.process.sessions.cancel(self.scope, self.id)

    async def questions(self) -> list[Interrupt]:
        """The open questions."""
        return await self.process.sessions.interrupts(self.scope, self.id)

    async def answer(self, question: Interrupt, decision: str, **more: Any) -> None:
        """Answer a question."""
        await self.process.sessions.answer(self.scope, self.id, question.id, Decision(decision, **more))

    async def row(self) -> Execution:
        """The session's row."""
        return await self.process.sessions.get(self.scope, self.id)

    async def until(self, reached: Callable[[], Awaitable[bool]]) -> None:
        """Wait for what a commit brings about."""
        async with asyncio.timeout(GUARD):
            while True:
                self._committed.event.clear()
                if await reached():
                    return
                await self._committed.event.wait()

    async def rest(self, *states: str) -> str:
        """Wait until the session is idle or waiting, or in these states."""
        now = ""

        async def reached() -> bool:
            nonlocal now
            now = (await self.row()).state
            return now in (states or ("idle", "waiting", "ended"))

        await self.until(reached)
        return now

    async def until_entry(self, kind: type[Entry], count: int = 1) -> None:
        """Wait for this many entries of a type."""

        async def reached() -> bool:
            return len(of(await self.log(), kind)) >= count

        await self.until(reached)

    async def stored(self) -> list[Stored]:
        """The log, each entry in its place."""
        rows = await self.process.sessions.entries(self.scope, self.id, 0, 100_000)
        return [row.stored() for row in rows]

    async def log(self) -> list[Entry]:
        """The log."""
        return [stored.entry for stored in await self.stored() if isinstance(stored.entry, Entry)]

    async def faults(self) -> list[str]:
        """What is wrong with the session at rest; empty when it is as it must be."""
        row = await self.row()
        wrong = log_faults(await self.log())
        wrong += [] if row.state == "idle" else [f"it is {row.state}"]
        wrong += [] if row.run_id is None else ["the row has a run"]
        wrong += [] if row.failures == 0 else ["the row counts failures"]
        return wrong + ["questions are open"] * len(await self.questions())

    def prompts(self, model: str = "main") -> list[list[str]]:
        """What each call of a model was told, message by message."""
        return [[told(message) for message in request.messages] for request in self.models[model].requests]


def told(message: Message) -> str:
    """A message in one line: who, and what."""
    match message:
        case UserMessage():
            return f"user: {text_of(message.parts)}"
        case AssistantMessage():
            calls = "".join(f" [{call.name}]" for call in message.calls)
            return f"model: {text_of(message.parts)}{calls}"
        case ToolResult():
            return f"{message.call.name}: {message.content}"


def of(log: list[Entry], kind: type[T]) -> list[T]:
    """The entries of a type."""
    return [entry for entry in log if isinstance(entry, kind)]


def outcomes(log: list[Entry]) -> list[tuple[str, str]]:
    """How each call ended, in the order of the log."""
    return [(done.name, done.outcome) for done in of(log, ToolDone)]


@asynccontextmanager
async def opened(
    home: Path, tools: Mapping[str, Tool] | None = None, *, committed: Committed | None = None, **settings: Any
) -> AsyncIterator[World]:
    """A process on a home with the models `test/NAME`; `main` is made by `World.agent`.

    Worlds on one database share `committed`, or they would not hear of each other.
    """
    models: dict[str, ScriptedModel] = {}
    committed = committed or Committed()
    async with open_process(
        Settings(home=home, synchronous="normal", **settings),
        environment={},
        workspace=home,
        factories={"test": lambda name: models[name]},
        tools=tools,
        observer=committed,
    ) as process:
        yield World(process, models, committed)
