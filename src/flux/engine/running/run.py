"""One run of an execution: all that an executor may do to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from msgspec.structs import replace

from flux import redaction
from flux.engine.dispatching.dispatch import Dispatch
from flux.engine.intake.admission import Told, tell, wake_waiters
from flux.errors import Fenced
from flux.events import (
    ENDS,
    PROGRESS,
    RUN_ENDS,
    CancelRequested,
    DeltaEvent,
    Entry,
    Progress,
    Reasoning,
    RunEnd,
    RunStarted,
    Stored,
    Token,
    ToolOutput,
    spent_by,
)
from flux.metrics import count_entries
from flux.redaction import Pieces
from flux.store import budgets, driven, executions, interrupts, log
from flux.store.database import Database, Steps
from flux.store.deltas import settled_by, subject_of
from flux.store.executions import Execution, Spent, encode_spent
from flux.store.feed import Feed
from flux.store.interrupts import Interrupt
from flux.store.log import Then
from flux.store.waits import Woken

#: So many entries are read whole, without a look for a compaction.
SHORT_LOG = 50

logger = logging.getLogger(__name__)

#: Seconds that a process which leaves waits for an append.
LEAVE_SECONDS = 3.0


class Link(Protocol):
    """How a driven run reaches the one that drives it."""

    async def saw(self, entries: Sequence[Entry]) -> None:
        """The child has appended entries."""
        ...

    def knows(self, question: str) -> bool:
        """Whether a question of the child is in the driver's log."""
        ...

    def emitted(self, delta: DeltaEvent) -> None:
        """The child has shown a delta."""
        ...

    def took(self, spent: Spent) -> None:
        """The child goes on; it has spent so much already."""
        ...

    def overdrawn(self, tokens: int, cost: float) -> str | None:
        """Why the child may spend no more, when those below it have spent so much that its log does not have yet."""
        ...

    @property
    def stops(self) -> bool:
        """Whether who cancels the driving wants the child stopped; else it is left as it is."""
        ...


class HandOver(Exception):
    """This process is leaving and starts nothing new: another one goes on with the run.

    An executor raises it when it sees `Run.draining`; the runner hands the execution back, and counts no failure.
    """


class Refused(Exception):
    """This worker cannot run the execution, and another one may: the text says why.

    An executor raises it; the runner hands the execution back, and this worker is not the next to take it.
    """


class Run:
    """An execution as claimed by this worker. `failures` counts failed runs since the last progress."""

    def __init__(
        self,
        execution: Execution,
        database: Database,
        feed: Feed,
        dispatch: Dispatch,
        draining: asyncio.Event | None = None,
        *,
        link: Link | None = None,
        depth: int = 0,
        given: Sequence[Stored] = (),
    ) -> None:
        self.link = link
        #: How many runs drive this one, each inside the next.
        self.depth = depth
        self._children: dict[str, Run] = {}
        self._driving: dict[str, asyncio.Lock] = {}
        self.id = execution.id
        self.scope = execution.scope
        self.epoch = execution.epoch
        self.execution = execution
        self.run_id = execution.run_id
        self.failures = execution.failures
        self.spent = execution.spent
        #: The agent whose budget of its own this run spends from.
        self.account: str | None = None
        self.left: Then | None = None
        #: How the runs that began here ended, by the messages which they consumed.
        self.ends: dict[str, RunEnd] = {}
        self._inputs: tuple[str, ...] = ()
        #: The head of the log when it was left.
        self.left_at = 0
        self.changed = asyncio.Event()
        #: Set when the process begins to leave.
        self.draining = draining or asyncio.Event()
        self.database = database
        self.feed = feed
        self.dispatch = dispatch
        self._watched = execution.head
        self._watchers: set[asyncio.Event] = set()
        #: What `read` gives next: the whole log where the claim has brought it, then what the run itself writes.
        self._own: list[Stored] = list(given)
        self._read_to = 0
        self._others_wrote = not given
        #: Texts that come in pieces, by what they are of: what of them waits for the next piece.
        self._pieces: dict[tuple[type, str], tuple[Pieces, Token | Reasoning | ToolOutput]] = {}

    def driving(self, child: str) -> asyncio.Lock:
        """Held by who drives this child; one at a time."""
        return self._driving.setdefault(child, asyncio.Lock())

    @contextmanager
    def holding(self, child: Run) -> Iterator[None]:
        """While a child runs: its readers see it, and it hears of what others write."""
        self._children[child.id] = child
        self.feed.begin(child.id, child.epoch, child.execution.head)
        try:
            yield
        finally:
            self.feed.end(child.id)
            del self._children[child.id]

    async def read(self, after: int) -> list[Stored]:
        """The entries behind `after`. Its own are not read again, as long as nobody else is known to have written.

        Who decides something by what is not there says so to `append`: `seen` finds what was missed.
        """
        own, self._own = self._own, []
        if not self._others_wrote and after >= self._read_to and (not own or own[0].seq == after + 1):
            self._read_to = own[-1].seq if own else after
            return own
        self._others_wrote = False
        found = await self._read(after)
        self._read_to = found[-1].seq if found else after
        return found

    async def reread(self) -> list[Stored]:
        """The log from its last compaction on, as the store tells it now."""
        return await self.database.read(log.resume(self.scope, self.id))

    def others_wrote(self) -> None:
        """Somebody else wrote to the log, or may have."""
        self._others_wrote = True
        self.changed.set()
        for watcher in self._watchers:
            watcher.set()
        for child in self._children.values():
            child.others_wrote()

    async def answered(self, id: str, seconds: float) -> Interrupt | None:
        """A question as soon as it is closed; None when it is still open after so many seconds."""
        with self.watching() as news, suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    news.clear()
                    asked = await self.database.read(interrupts.get(self.scope, self.id, id))
                    if asked is not None and asked.state != "open":
                        return asked
                    await news.wait()
        return None

    @contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever somebody else may have written to the log."""
        news = asyncio.Event()
        self._watchers.add(news)
        try:
            yield news
        finally:
            self._watchers.discard(news)

    async def append(
        self,
        *entries: Entry,
        also: Steps[None] | None = None,
        seen: int | None = None,
        then: Then | None = None,
    ) -> bool:
        """Append; leave the run in `then` if the head is still `seen`. False: the head has moved.

        `also` runs in the same transaction; what it raises undoes the append. A caller that is cancelled
        does not take it back: it is finished first, so that whoever reads next finds it.

        :raises Fenced: another worker owns the execution now
        """
        task = asyncio.create_task(self._append(entries, also, seen, then))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # Who leaves does not wait long for a database that is away: the hand-back fences what comes late.
            await asyncio.wait((task,), timeout=LEAVE_SECONDS if self.draining.is_set() else None)
            task.add_done_callback(_tell)
            raise

    async def _append(
        self, entries: tuple[Entry, ...], also: Steps[None] | None, seen: int | None, then: Then | None
    ) -> bool:
        entries = tuple(map(redaction.struct, entries))  # who goes on with them here sees what is kept
        spent = self._spent_with(entries)
        usage = encode_spent(spent) if spent is not self.spent else None

        woken: list[Woken] = []
        told: Told = {}

        def program() -> Steps[log.Appended]:
            done = yield from log.append(
                self.scope, self.id, self.epoch, self.run_id, entries, seen=seen, then=then, usage=usage
            )
            if also is not None:
                yield from also
            if self.account is not None:
                used = spent.since(self.spent)
                yield from budgets.spend(self.scope, self.account, self.id, used.tokens.total, used.cost)
            yield from self._tell_of_end(done, (then.outcome if then else None) or "", told, woken)
            return done

        if self._pieces:
            self._show_rest(entries)
        await self.feed.flushed(self.id)
        done = await self.database.write(program())
        count_entries(entries)
        self.spent = spent
        self._note(entries)
        self.feed.publish(self.id, done.rows, settled_by(entries))
        if done.hooked:
            self.feed.on_hooked()
        tell(self.feed, self.dispatch, woken)
        for id, rows in told.items():
            self.feed.publish(id, rows)
        self._keep(done.rows, entries)
        if self.link is not None:
            await self.link.saw(entries)
        if then is not None and done.state == then.state:
            self.left, self.left_at = then, done.head
            return True
        self._others_wrote = self._others_wrote or then is not None
        return then is None

    def _tell_of_end(self, done: log.Appended, outcome: str, told: Told, woken: list[Woken]) -> Steps[None]:
        """End what this execution drives and wake who waits for it, in the transaction that ends it."""
        if done.drives:
            told.update((yield from driven.end_all(self.id, outcome, "driver_ended")))
        if done.awaited:
            woken.extend((yield from wake_waiters(self.scope, self.id, outcome, self.dispatch)))

    def start_nothing_while_draining(self) -> None:
        """Call this before a model call and before a tool call.

        :raises HandOver: this process is leaving
        """
        if self.draining.is_set():
            raise HandOver

    def overdrawn(self, tokens: int = 0, cost: float = 0.0) -> str | None:
        """Why whoever drives this run lets it spend no more, when those below it have spent so much besides."""
        return self.link.overdrawn(tokens, cost) if self.link is not None else None

    def emit(self, delta: DeltaEvent) -> None:
        """Show a delta to whoever reads this execution."""
        if self._pieces or redaction.active():
            shown = self._redacted(delta)
            if shown is None:
                return
            delta = shown
        self.feed.emit(self.id, delta)
        if self.link is not None:
            self.link.emitted(delta)

    def _redacted(self, delta: DeltaEvent) -> DeltaEvent | None:
        """A delta without secrets; None when all of it waits for the next one. What a child shows is redacted there."""
        match delta:
            case Token() | Reasoning() | ToolOutput():
                place = type(delta), subject_of(delta)
                pieces, _ = self._pieces.setdefault(place, (Pieces(), delta))
                shown = pieces.add(delta.text)
                if not redaction.active():
                    del self._pieces[place]
                return replace(delta, text=shown) if shown else None
            case Progress():
                return replace(delta, value=redaction.value(delta.value))
        return delta

    def _show_rest(self, entries: tuple[Entry, ...]) -> None:
        """Show what was held back of the texts that end with these entries."""
        subjects = settled_by(entries)
        for place in [place for place in self._pieces if place[1] in subjects]:
            pieces, delta = self._pieces.pop(place)
            if rest := pieces.rest():
                self.feed.emit(self.id, shown := replace(delta, text=rest))
                if self.link is not None:
                    self.link.emitted(shown)

    async def cancel_requested(self) -> None:
        """Return when somebody asks to stop this run.

        :raises Fenced: the execution was taken away, or ended
        """
        while True:
            await self.changed.wait()
            self.changed.clear()
            row = await self.database.single(executions.get(self.scope, self.id))
            if row is None or row.epoch != self.epoch or row.state != "running":
                raise Fenced(debug=f"{self.id} left epoch {self.epoch}")
            entries = await self._read(self._watched)
            self._watched = entries[-1].seq if entries else self._watched
            if any(isinstance(s.entry, CancelRequested) and s.entry.run == self.run_id for s in entries):
                return

    async def _read(self, after: int) -> list[Stored]:
        if not after and self.execution.head > SHORT_LOG:
            return await self.reread()
        return await self.database.single(log.load(self.scope, self.id, after))

    def _keep(self, rows: tuple[log.LogRow, ...], entries: tuple[Entry, ...]) -> None:
        for row, entry in zip(rows, entries, strict=True):
            if self._own and row.seq != self._own[-1].seq + 1:
                self._others_wrote = True
            self._own.append(Stored(row.seq, row.epoch, row.at, entry))

    def _note(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            if isinstance(entry, RunStarted):
                self.run_id, self._inputs = entry.run, entry.inputs
            elif isinstance(entry, ENDS):
                self.run_id = None
                if isinstance(entry, RUN_ENDS):
                    self.ends |= dict.fromkeys(self._inputs, entry)
            if isinstance(entry, PROGRESS):
                self.failures = 0

    def _spent_with(self, entries: tuple[Entry, ...]) -> Spent:
        spent = self.spent
        for tokens, cost in map(spent_by, entries):
            spent = spent.plus(tokens, cost) if tokens.total or cost else spent
        return spent


Executor = Callable[[Run], Awaitable[None]]


def _tell(task: asyncio.Task[bool]) -> None:
    """The caller has left: nobody else hears of it."""
    if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, Fenced):
        logger.warning("an append failed while its run was stopped: %s", error)
