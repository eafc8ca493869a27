"""A run as a person sees it: shown while it works, asked about when it waits, stopped by Ctrl+C."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing, suppress
from typing import Any, Literal, Protocol

import msgspec
from msgspec import Struct

from flux.client import Event, FluxClient, SessionHandle
from flux.errors import FluxError, InterruptDecided, InvalidInput, ServerUnreachable
from flux.events import QUESTIONS, Mode, decode
from flux.surfaces.terminal.beside import beside, tell_when_lost, tick
from flux.surfaces.terminal.history import Past
from flux.surfaces.terminal.meanwhile import Meanwhile
from flux.surfaces.terminal.problems import LOST, problem
from flux.surfaces.terminal.questions import Keys, Reply, ask
from flux.surfaces.terminal.signals import Signals
from flux.surfaces.terminal.view import Projection, View

LEAVING = "Leaving when this run ends; Ctrl+C cancels it."
NOT_TAKEN = "The server did not take this message; it is back at the prompt."
NOT_WAITING = "Not waiting for the run to stop; /session shows when it has."
NOT_CANCELLED = "Left the run, which may go on; /cancel stops it."

Cancelling = Literal["asked", "idle", "failed"]


class Prompter(Keys, Protocol):
    """Reads what the person types."""

    async def message(self) -> str:
        """The next message or command."""

    def typing(self, leave: Callable[[], None], send: Callable[[str], bool]) -> AbstractContextManager[None]:
        """Keep what is typed meanwhile for the next message; `leave` is called for Ctrl+D.

        `send` is given each line that Enter has ended, and says whether it has taken it.
        """

    def hold(self) -> None:
        """What was typed so far answers no question, and is not sent by itself."""

    def put_back(self, text: str) -> None:
        """The next prompt begins with this text."""


class _Sent(Struct, frozen=True):
    """A message on its way; `key` makes sure that the same one is taken once, however often it is sent."""

    text: str
    model: str | None
    key: str


class Conversation:
    """Shows the runs of a session. `ready` is awaited before the first one.

    `lost`: the server went away in the middle of a run.
    """

    def __init__(
        self, client: FluxClient, session: SessionHandle, view: View, prompt: Prompter, signals: Signals
    ) -> None:
        self.leaving = False
        self.lost = False
        self.ready: asyncio.Task[None] | None = None
        self._client = client
        self._session = session
        self._view = view
        self._prompt = prompt
        self._signals = signals
        self._shown = Projection(view)
        self._sent: _Sent | None = None
        self._cancelling: asyncio.Task[Cancelling] | None = None
        self._left = False
        self._heard = 0.0
        self._model: str | None = None
        self._meanwhile = Meanwhile(view, self._shown, self._post, prompt.put_back)

    async def prompt(self) -> str | None:
        """What the person types next; None when there is nothing to do."""
        self._shown.announce()
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

    async def turn(self, text: str, model: str | None = None, mode: Mode = "queue") -> None:
        """Send a message and show its run to the end; it comes back to the prompt if the server is not there.

        :raises FluxError: it was not accepted
        """
        before, self._session.accepted = self._sent, None
        again = before is not None and (before.text, before.model) == (text, model)
        sent = before if before and again else _Sent(text, model, uuid.uuid4().hex)
        self._sent, self._model = sent, model
        self._shown.typed(text)
        try:
            await self._follow(self._session.send(text, mode=mode, model=model, key=sent.key))
        except ServerUnreachable:
            self._prompt.put_back(text)
            raise
        finally:
            if self._unsent is not None:
                self._shown.taken_back(text)
            else:
                self._sent = None

    async def compact(self) -> None:
        """Have the earlier messages summarised, and show that.

        :raises FluxError: it was not accepted
        """
        await self._follow(self._session.compacting())

    async def resume(self, past: Past) -> None:
        """Show what is past, and go on behind it for as long as the session has something to do."""
        if self.ready is not None:
            await self.ready
        for entry in past.entries:
            self._shown.feed(entry)
        self._session.cursor = str(past.start)
        for message in past.messages:
            self._shown.queued(message)
        more = past.open
        while more:
            await self._follow(self._session.until_rest())
            more = bool(self._shown.pending) and not (self._left or self.leaving or self.lost)

    def move(self, session: SessionHandle, draft: str) -> None:
        """Go on in another session; the next prompt begins with a text."""
        self._session, self._shown = session, Projection(self._view)
        self._meanwhile = Meanwhile(self._view, self._shown, self._post, self._prompt.put_back)
        self.lost, self._sent = False, None
        if draft:
            self._prompt.put_back(draft)

    async def greeted(self) -> None:
        """Show what a session says by itself before anybody has said anything."""
        if self.ready is not None:
            await self.ready
        await self._follow(self._session.until_rest())

    async def ask_again(self) -> None:
        """Ask the open questions, and show what follows."""
        self._cancelling = None
        following = await self._ask_open()
        if following is not None:
            await self._follow(following)

    async def go_on(self) -> None:
        """Show what became of a run whose server went away."""
        if await self._session.interrupts():
            await self.ask_again()
        else:
            await self._follow(self._session.until_rest())

    async def _follow(self, events: AsyncGenerator[Event, None]) -> None:
        """Show a run until it ends, or until the person leaves it; then those of what was typed meanwhile."""
        self._left = self.lost = False
        following: AsyncGenerator[Event, None] | None = events
        while following is not None:
            self._cancelling = None
            while following is not None and await self._show(following):
                following = await self._next()
            following = await self._typed_meanwhile()
        self._meanwhile.forget()

    async def _typed_meanwhile(self) -> AsyncGenerator[Event, None] | None:
        """The run of the next message that was typed during the last one."""
        if self._left or self.lost or self.leaving:
            return None
        message = await self._meanwhile.next()
        if message is None:
            return None
        self._session.watch(message)
        return self._session.until_rest()

    def _typed(self, line: str) -> bool:
        """A line that was typed during a run; it does not overtake the message that begins it."""
        return self._unsent is None and self._meanwhile.typed(line)

    async def _post(self, text: str, *, mode: Mode, key: str) -> dict[str, Any]:
        return await self._session.post(text, mode=mode, model=self._model, key=key)

    async def _next(self) -> AsyncGenerator[Event, None] | None:
        """What follows the events of a run that rests; None when there is nothing to wait for."""
        if self._session.state != "waiting" or self.leaving:
            return None
        if self._cancelling is not None and await self._cancelling == "asked":
            return self._session.until_rest()  # its questions are not asked any more
        return await self._ask_open()

    async def _show(self, events: AsyncGenerator[Event, None]) -> bool:
        """Show events until the run rests; False when that was not waited for."""
        if self.ready is not None:
            await self.ready
        self._heard = asyncio.get_running_loop().time()
        reading = asyncio.create_task(self._read(events))
        self._signals.on_interrupt = lambda: self._interrupted(reading)
        self._view.begin()
        try:
            away = tell_when_lost(self._client, self._view, lambda: self._heard)
            with self._prompt.typing(self._leave_soon, self._typed):
                async with beside(tick(self._view), away):
                    await reading
        except asyncio.CancelledError:
            if not self._left:
                raise
            self._say_left()
        except ServerUnreachable:
            if self._unsent is not None:
                raise
            self.lost = True
            self._view.line(LOST, "error")
        finally:
            self._signals.on_interrupt = None
            with suppress(OSError):
                self._view.rest()
        return not (self._left or self.lost)

    async def _read(self, events: AsyncGenerator[Event, None]) -> None:
        async with aclosing(events):
            async for event in events:
                self._heard = asyncio.get_running_loop().time()
                self._shown.feed(event.event)

    @property
    def _unsent(self) -> str | None:
        """The message that is on its way, as long as the server has not taken it."""
        return self._sent.text if self._sent and self._session.accepted is None else None

    def _say_left(self) -> None:
        stopping = self._cancelling
        if (unsent := self._unsent) is not None:
            self._prompt.put_back(unsent)
            self._view.line(NOT_TAKEN, "dim")
        elif stopping is not None and stopping.done() and stopping.result() == "failed":
            self._view.line(NOT_CANCELLED, "dim")
        else:
            self._view.line(NOT_WAITING, "dim")

    def _leave_soon(self) -> None:
        """Ctrl+D while a run works."""
        if not self.leaving:
            self.leaving = True
            self._view.line(LEAVING, "dim")

    def _interrupted(self, reading: asyncio.Task[None]) -> None:
        """Ctrl+C: stop the run; once more: do not wait until it has stopped."""
        stopping = self._cancelling
        if stopping is None or (stopping.done() and stopping.result() == "idle"):
            self._cancelling = asyncio.create_task(self._cancel())
        else:
            self._left = True
            reading.cancel()

    async def _cancel(self) -> Cancelling:
        """Ask to stop the run; "idle": nothing was running yet, so that asking again makes sense."""
        try:
            return "asked" if (await self._session.cancel()).get("cancelled") else "idle"
        except FluxError as error:
            self._view.line(problem(error), "error")
            return "failed"

    async def _ask_open(self) -> AsyncGenerator[Event, None] | None:
        """Ask every open question; what follows, or None when the person leaves."""
        self._prompt.hold()
        rows = sorted(await self._session.interrupts(), key=self._asked_at)
        while rows:
            row = rows.pop(0)
            asked: Any = decode(msgspec.json.encode(row["payload"]))
            if not isinstance(asked, QUESTIONS):
                self._view.line(f"A question of kind {row['kind']} must be answered elsewhere.", "dim")
                continue
            reply = await self._reply(asked)
            if reply is None:
                return self._session.until_rest() if await self._stopping() else None
            if not rows:
                return self._resolved(row, reply)
            await self._answer(row, reply)
        return self._session.until_rest()

    async def _reply(self, asked: Any) -> Reply | None:
        """What the person answers; None when they stop the run, or leave."""
        reply = None
        try:
            reply = await ask(asked, self._view, self._prompt)
        except KeyboardInterrupt:
            self._cancelling = asyncio.create_task(self._cancel())
        except EOFError:
            self.leaving = True
        self._view.prompted()
        return reply

    async def _stopping(self) -> bool:
        """Whether the person has stopped the run."""
        return self._cancelling is not None and await self._cancelling != "failed" and not self.leaving

    def _asked_at(self, row: dict[str, Any]) -> int:
        order = self._shown.asked
        return order.index(row["id"]) if row["id"] in order else len(order)

    async def _answer(self, row: dict[str, Any], reply: Reply) -> None:
        """Answer one of several questions."""
        try:
            await self._client.session(row["session"]).answer(
                row["id"], reply.decision, reason=reply.reason, always=reply.always, content=reply.content
            )
        except FluxError as error:
            self._say_unanswered(error)

    async def _resolved(self, row: dict[str, Any], reply: Reply) -> AsyncGenerator[Event, None]:
        """Answer the last question, and what follows; also when somebody else was faster."""
        resolving = self._session.resolve(
            row["id"],
            reply.decision,
            reason=reply.reason,
            always=reply.always,
            content=reply.content,
            session=row["session"],
        )
        try:
            async with aclosing(resolving) as events:
                async for event in events:
                    yield event
            return
        except FluxError as error:
            self._say_unanswered(error)
            if isinstance(error, InvalidInput):
                return  # the question is still open
        async with aclosing(self._session.until_rest()) as events:
            async for event in events:
                yield event

    def _say_unanswered(self, error: FluxError) -> None:
        if isinstance(error, ServerUnreachable):
            raise error
        if isinstance(error, InterruptDecided):
            self._view.line("This was answered elsewhere meanwhile.", "dim")
        else:
            self._view.line(problem(error), "error")
