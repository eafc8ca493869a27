"""Tools whose every step a test can hold."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from flux.tools.base import Done, Effect, Failed, NeedsInput, Tool, ToolContext, ToolOutcome
from flux.tools.function import tool_of


class Bench:
    """Tools that note what they do; `hold` ones wait until they are let go."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled: list[str] = []
        self.running = 0
        self.most_running = 0
        self.three = asyncio.Event()

    def tools(self) -> dict[str, Tool]:
        """All of them."""

        async def look(n: int = 0) -> str:
            """Look."""
            return self._do(f"look {n}")

        async def pay(n: int = 0) -> str:
            """Pay."""
            return self._do(f"pay {n}")

        async def wipe(n: int = 0) -> str:
            """Wipe."""
            return self._do(f"wipe {n}")

        async def break_(n: int = 0) -> str:
            """Always fail."""
            self._do(f"break {n}")
            raise OSError("it is broken")

        async def slow(context: ToolContext) -> str:
            """Never end in time."""
            await asyncio.Event().wait()
            return ""

        async def impatient() -> str:
            """Run out of a time of its own."""
            raise TimeoutError("no reply from printer")

        async def twice(context: ToolContext) -> ToolOutcome:
            """Ask again until the answer is yes."""
            if context.answer is None or context.answer.content != "yes":
                return NeedsInput("input", {"question": "Really?"})
            return Done("agreed")

        async def refuse() -> ToolOutcome:
            """Fail politely."""
            return Failed("not today")

        made = (
            tool_of(look, effect="read"),
            tool_of(pay),
            tool_of(wipe, requires_approval=_large),
            tool_of(break_).named("break"),
            tool_of(slow, timeout=0.01),
            tool_of(impatient),
            tool_of(twice),
            tool_of(refuse),
            tool_of(confirm),
            *(tool_of(self._holding(name), effect=effect).named(name) for name, effect in HOLDING),
        )
        return {tool.name: tool for tool in made}

    def _do(self, what: str) -> str:
        self.done.append(what)
        return f"{what} done"

    def _holding(self, name: str) -> Any:
        async def hold(n: int = 0) -> str:
            """Wait until let go."""
            self.running += 1
            self.most_running = max(self.running, self.most_running)
            self.begun.set()
            if self.running == 3:
                self.three.set()
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled.append(f"{name} {n}")
                raise
            finally:
                self.running -= 1
            return self._do(f"{name} {n}")

        return hold


async def confirm(context: ToolContext, patience: float) -> ToolOutcome:
    """Ask while it goes on; ask and leave when nobody answers so long."""
    question = NeedsInput("input", {"question": "Sure?"})
    answer = context.answer or await context.ask(question, patience)
    return Done(f"{answer.content}, asked {len(context.answers)} times before") if answer else question


HOLDING: tuple[tuple[str, Effect], ...] = (("hold", "once"), ("hold_read", "read"))


def _large(args: Mapping[str, Any]) -> bool:
    return bool(args.get("n", 0) < 100)
