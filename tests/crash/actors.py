"""The models and tools of the crash tests: each leaves on disk what it did, and passes points."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from flux.agents.history.prompt import PromptBroken, check
from flux.agents.turn import compaction
from flux.messages import AssistantMessage, ModelFailure, TextDelta, TextPart
from flux.models.base import Model, ModelEvent, ModelLimits, ModelRequest
from flux.testing import Call, Reply, ScriptedModel
from flux.tools.base import Tool, ToolContext
from flux.tools.function import tool_of
from tests.crash.stage import Stage

#: How many sessions the blocking model waits for.
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


#: Who says what in a family of agents.
FAMILY = {
    "chief": (
        Reply(calls=(Call("delegate", {"agent": "hand", "instruction": "Do it."}), Call("pay", {"n": 1}))),
        Reply("All is done."),
    ),
    "hand": (
        Reply(calls=(Call("look", {"n": 2}), Call("pay", {"n": 3}), Call("wipe", {"n": 4}))),
        Reply(calls=(Call("note", {"n": 5}),)),
        Reply("It is done."),
    ),
    "helper": (
        Reply(calls=(Call("look", {"x": 5}), Call("pay", {"x": 6}), Call("wipe", {"x": "disk"}))),
        Reply(calls=(Call("look", {"x": 7}),)),
        Reply("All is done."),
    ),
}


class RecordingModel(Model):
    """A scripted model that leaves on disk what it was asked, and passes points."""

    name = "crash/test"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._script = ScriptedModel(SCRIPT, name=self.name)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Answer by the script."""
        turn = sum(isinstance(message, AssistantMessage) for message in request.messages)
        self._stage.calls.add("model", turn=turn, problem=problem_of(request))
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

    async def preload(self) -> None:
        """Nothing is slow."""


class FamilyModel(RecordingModel):
    """The model of an agent that delegates, of the one it delegates to, and of one with tasks for tools."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Answer by the script of whoever has these tools."""
        turn = sum(isinstance(message, AssistantMessage) for message in request.messages)
        names = {tool.name for tool in request.tools}
        who = "chief" if "delegate" in names else "hand" if "note" in names else "helper"
        self._stage.calls.add("model", turn=f"{who} {turn}", problem=problem_of(request))
        async with aclosing(ScriptedModel(FAMILY[who]).stream(request)) as events:
            async for event in events:
                yield event


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
            self._stage.calls.add("model", turn=0, problem=problem_of(request))
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


def problem_of(request: ModelRequest) -> str:
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


MODELS: dict[str, Callable[[Stage], Model]] = {
    "test": RecordingModel,
    "family": FamilyModel,
    "long": LongModel,
    "blocking": BlockingModel,
}
