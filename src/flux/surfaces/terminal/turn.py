"""A run as a person sees it: shown while it works, asked about when it waits, stopped by Ctrl+C."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, Protocol

import msgspec

from flux.client import Event, FluxClient, SessionHandle
from flux.errors import FluxError, InterruptDecided
from flux.events import QUESTIONS, decode
from flux.surfaces.terminal.beside import beside, tell_when_lost, tick
from flux.surfaces.terminal.history import Past
from flux.surfaces.terminal.problems import problem
from flux.surfaces.terminal.questions import Keys, Reply, ask
from flux.surfaces.terminal.signals import Signals
from flux.surfaces.terminal.view import Projection, View


class Prompter(Keys, Protocol):
    """Reads what the person types."""

    async def message(self) -> str:
        """The next message or command."""


class Conversation:
    """Shows the runs of a session. `ready` is awaited before the first one."""

    def __init__(
        self, client: FluxClient, session: SessionHandle, view: View, prompt: Prompter, signals: Signals
    ) -> None:
        self.leaving = False
        self.ready: asyncio.Task[None] | None = None
        self._client = client
        self._session = session
        self._view = view
        self._prompt = prompt
        self._signals = signals
        self._shown = Projection(view)
        self._cancelling: asyncio.Task[bool] | None = None
        self._left = False
        self._heard = 0.0

    async def prompt(self) -> str | None:
        """What the person types next; None when there is nothing to do."""
        self._view.space()
        try:
            line = await self._prompt.message()
            self._view.prompted()
            return line
        except EOFError:
            self._view.prompted()
            self.leaving = True
        except KeyboardInterrupt:
            self._view.prompted()
            self._view.line("Ctrl+D leaves; the session can be resumed.", "dim")
        return None

    async def turn(self, text: str, model: str | None = None) -> None:
        """Send a message and show its run to the end."""
        self._shown.typed(text)
        await self._follow(self._session.send(text, model=model))

    async def resume(self, past: Past) -> None:
        """Go on behind what is past, for as long as the session has something to do."""
        self._session.cursor = str(past.start)
        for message in past.messages:
            self._shown.queued(message)
        more = past.open
        while more:
            await self._follow(self._session.until_rest())
            more = bool(self._shown.pending) and not (self._left or self.leaving)

    async def ask_again(self) -> None:
        """Ask the open questions, and show what follows."""
        if await self._ask_open():
            await self._follow(self._session.until_rest())

    async def _follow(self, events: AsyncGenerator[Event, None]) -> None:
        """Show a run until it ends, or until the person leaves it."""
        self._left = False
        while await self._show(events) and self._session.state == "waiting":
            if not await self._ask_open():
                return
            events = self._session.until_rest()

    async def _show(self, events: AsyncGenerator[Event, None]) -> bool:
        """Show events until the run rests; False when the person did not wait for that."""
        if self.ready is not None:
            await self.ready
        self._cancelling = None
        self._heard = asyncio.get_running_loop().time()
        reading = asyncio.create_task(self._read(events))
        self._signals.on_interrupt = lambda: self._interrupted(reading)
        self._view.begin()
        try:
            async with beside(tick(self._view), tell_when_lost(self._client, self._view, lambda: self._heard)):
                await reading
        except asyncio.CancelledError:
            if not self._left:
                raise
            self._view.line("Left the run; it goes on. /cancel stops it.", "dim")
        finally:
            self._signals.on_interrupt = None
            with suppress(OSError):
                self._view.rest()
        return not self._left

    async def _read(self, events: AsyncGenerator[Event, None]) -> None:
        async with aclosing(events):
            async for event in events:
                self._heard = asyncio.get_running_loop().time()
                self._shown.feed(event.event)

    def _interrupted(self, reading: asyncio.Task[None]) -> None:
        """Ctrl+C: stop the run; once more: do not wait until it has stopped."""
        stopping = self._cancelling
        if stopping is None or (stopping.done() and not stopping.result()):
            self._cancelling = asyncio.create_task(self._cancel())
        else:
            self._left = True
            reading.cancel()

    async def _cancel(self) -> bool:
        """Ask to stop the run; False when nothing was running yet, so that asking again makes sense."""
        try:
            return bool((await self._session.cancel()).get("cancelled"))
        except FluxError as error:
            self._view.line(problem(error), "error")
            return True

    async def _ask_open(self) -> bool:
        """Ask every open question; False when the person leaves."""
        for row in sorted(await self._session.interrupts(), key=self._asked_at):
            asked: Any = decode(msgspec.json.encode(row["payload"]))
            if not isinstance(asked, QUESTIONS):
                self._view.line(f"A question of kind {row['kind']} must be answered elsewhere.", "dim")
                continue
            try:
                reply = await ask(asked, self._view, self._prompt)
            except KeyboardInterrupt:
                self._view.prompted()
                await self._cancel()
                return True
            except EOFError:
                self._view.prompted()
                self.leaving = True
                return False
            self._view.prompted()
            await self._answer(row["session"], row["id"], reply)
        return True

    def _asked_at(self, row: dict[str, Any]) -> int:
        order = self._shown.asked
        return order.index(row["id"]) if row["id"] in order else len(order)

    async def _answer(self, session: str, interrupt: str, reply: Reply) -> None:
        try:
            await self._client.session(session).answer(
                interrupt, reply.decision, reason=reply.reason, always=reply.always, content=reply.content
            )
        except InterruptDecided:
            self._view.line("This was answered elsewhere meanwhile.", "dim")
        except FluxError as error:
            self._view.line(problem(error), "error")
