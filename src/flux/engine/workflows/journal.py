"""The journal of a workflow: what its tasks came to, kept in the log of the execution.

The workflow's function is run again from the top whenever it goes on; a call that the journal knows returns
what it returned before. Code of the workflow never writes by itself: it hands entries to one writer, which
puts all that wait into one append.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TypeVar

from msgspec import Struct

from flux.engine.running.run import Run
from flux.engine.workflows.place import Body, Place
from flux.engine.workflows.recorded import TOLD, Recorded
from flux.engine.workflows.services import Services
from flux.entries.base import Entry
from flux.errors import DatabaseLocked, DatabaseUnavailable, ExecutionSuspended
from flux.events import (
    Progress,
    Stored,
    Token,
    UsageCounted,
)
from flux.store import log
from flux.store.database import Steps
from flux.store.executions import Spent

T = TypeVar("T")

#: Seconds that an entry which nobody waits for may wait for company.
NOTE_SECONDS = 0.1
#: Seconds that nothing must happen before a workflow with several branches is put away.
QUIET_SECONDS = 0.02

#: What people are asked, by the kind of the question.
FOR_PEOPLE = ("approval", "elicitation", "input", "plan", "pause")
TALK = ("end", "message")
TIMED_OUT = object()


class Parked(Struct, frozen=True):
    """A call that waits: for `waiting_for`, showing `value`, until `due` (seconds since the epoch)."""

    call: str
    waiting_for: str
    value: Any
    due: float | None
    body: Body | None
    future: asyncio.Future[Any]


class _Write(Struct, frozen=True):
    entries: tuple[Entry, ...]
    also: Steps[None] | None
    done: asyncio.Future[None]


class Journal(Recorded):
    """What one execution's log says of its tasks, and the way to add to it. `within`: only those of one tool call."""

    def __init__(self, run: Run, services: Services, within: str | None = None) -> None:
        row = run.execution
        super().__init__(within, within is None and row.kind == "workflow" and row.agent is not None)
        self.run = run
        self.services = services
        self.head = 0
        self.log: list[Stored] = []
        #: What else wakes a parked call: the end of an execution, or a question -> the key of the call.
        self.also_wakes: dict[str, str] = {}
        self.parked: dict[str, Parked] = {}
        #: Set when no task is at work and a branch is parked.
        self.quiet = asyncio.Event()
        self.suspended = False
        self.branches: set[asyncio.Future[Any]] = set()
        #: What parts outside of the engine remember as long as this code runs, by their names.
        self.beside: dict[str, Any] = {}
        self._bodies: set[Body] = set()
        self._notes: list[Entry] = []
        self._soon: asyncio.TimerHandle | None = None
        self._writes: list[_Write] = []
        self._wanted = asyncio.Event()
        self._problem: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._claimed = time.monotonic()
        self._checks = 0
        self._reading = asyncio.Lock()
        self._writing = asyncio.Lock()

    def now(self) -> float:
        """The database's clock, in seconds since the epoch."""
        return self.run.execution.updated + time.monotonic() - self._claimed

    def root(self) -> Place:
        """The place of the workflow's own function, or of that of the tool call."""
        return Place(self._joined, () if self.within is None else (self.within,))

    async def outside(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something of the engine's on behalf of the workflow's code, without being a branch of it.

        When the database is away that is no failure of the workflow: the run ends here, and is tried again.
        """
        try:
            return await self._loop.create_task(work, context=self._context.copy())
        except (DatabaseLocked, DatabaseUnavailable) as problem:
            self._problem = self._problem or problem
            self._wanted.set()
        await self._loop.create_future()  # until the run stops this code
        raise ExecutionSuspended

    # What the log says

    async def catch_up(self) -> list[Stored]:
        """Read what is new in the log, and wake the calls that waited for it."""
        async with self._reading:
            found = await self._read()
            for stored in found:
                self.head = stored.seq
                self.log.append(stored)
                self._hear(stored.entry)
            self.looked_back = True
            return found

    async def _read(self) -> list[Stored]:
        if self.within is None:
            return await self.run.read(self.head)
        # The run's own reading is that of its session.
        return await self.run.database.read(log.load(self.run.scope, self.run.id, self.head))

    async def look_back(self) -> None:
        """Read what the log says of tasks, and nothing else: of a session it may be long."""
        newest, found = await self.run.database.read(_tasks(self.run))
        for stored in found:
            self._hear(stored.entry)
        self.head, self.looked_back = newest, True

    def _hear(self, entry: Any) -> None:
        """Add an entry, and wake the call that waited for it."""
        id = self.add(entry)
        if id is not None:
            self._wake(self.also_wakes.get(id, id), entry)

    # Adding to it

    def show(self, value: Any, call: str, name: str = "") -> None:
        """Show a value to whoever watches; it is not kept. Of a workflow that talks, a token is one of its answer."""
        match value:
            case {"token": str(text)} if self.talks:
                self.run.emit(Token(message_id=call, attempt=self.run.epoch, text=text))
            case _:
                self.run.emit(Progress(call=call, value=value, name=name))

    def note(self, *entries: Entry) -> None:
        """Write entries soon; nobody waits for them."""
        self._notes.extend(entries)
        if self._soon is None:
            self._soon = self._loop.call_later(NOTE_SECONDS, self._wanted.set)

    def _noted(self) -> tuple[Entry, ...]:
        """What is noted, for whoever writes it now."""
        notes, self._notes = tuple(self._notes), []
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        return notes

    def count(self, child: str, spent: Spent) -> None:
        """Note what a driven child has used in all, as far as that is not counted yet."""
        more = spent.since(self.counted.get(child, Spent()))
        if more.tokens.total or more.cost:
            self.counted[child] = spent
            self.note(UsageCounted(tokens=more.tokens, cost=more.cost, child=child))

    async def record(self, *entries: Entry, also: Steps[None] | None = None) -> None:
        """Write entries; they are durable when this returns. What `also` raises undoes this and comes out here."""
        if self.run.left is not None:
            raise ExecutionSuspended
        write = _Write((*self._noted(), *entries), also, self._loop.create_future())
        self._writes.append(write)
        self._wanted.set()
        await write.done

    async def write_forever(self) -> None:
        """The one writer.

        :raises Fenced: another worker owns the execution now
        :raises DatabaseLocked, DatabaseUnavailable: also when that struck elsewhere
        """
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._problem is not None:
                raise self._problem
            await self.flush()

    async def flush(self) -> None:
        """Write all that waits."""
        async with self._writing:
            while batch := self._take():
                await self._append([entry for write in batch for entry in write.entries], batch)

    async def rest(self) -> list[Entry]:
        """Write what somebody waits for; returns what nobody waits for, to be written with the end."""
        notes = self._noted()
        await self.flush()
        return [*notes, *self._noted()]

    async def _append(self, entries: list[Entry], batch: list[_Write]) -> None:
        also = batch[0].also
        try:
            await self.run.append(*entries, also=also)
        except Refused as refused:
            self._settle(batch, refused)
            return
        await self.catch_up()
        self._settle(batch)

    def _take(self) -> list[_Write]:
        """Writes that can share an append: those whose transaction does more stand alone."""
        if not self._writes and self._notes:
            self._writes.append(_Write(self._noted(), None, self._loop.create_future()))
        if not self._writes:
            return []
        if self._writes[0].also is not None:
            return [self._writes.pop(0)]
        count = next((n for n, write in enumerate(self._writes) if write.also is not None), len(self._writes))
        batch, self._writes = self._writes[:count], self._writes[count:]
        return batch

    def _settle(self, batch: list[_Write], problem: Refused | None = None) -> None:
        for write in batch:
            if write.done.done():
                continue
            if problem is None:
                write.done.set_result(None)
            else:
                write.done.set_exception(problem)
        self.look_for_quiet()

    # Who is at work

    @contextlib.contextmanager
    def executing(self, body: Body) -> Iterator[None]:
        """While a task is executed."""
        self._bodies.add(body)
        if body.parent:
            body.parent.inner += 1
        try:
            yield
        finally:
            self._bodies.discard(body)
            if body.parent:
                body.parent.inner -= 1
            self.look_for_quiet()

    async def park(
        self, call: str, key: str, waiting_for: str, value: Any, due: float | None, body: Body | None
    ) -> Any:
        """Wait for what wakes `key`: an answer or the end of another execution; `TIMED_OUT` at `due`."""
        found = self.answers.get(key) or self.ended.get(key)
        if found is not None:
            return found
        if self.suspended:
            raise ExecutionSuspended
        parked = Parked(call, waiting_for, value, due, body, self._loop.create_future())
        self.parked[key] = parked
        if body is not None:
            body.parked += 1
        self.look_for_quiet()
        try:
            return await parked.future
        finally:
            self._leave(key, parked)

    def ring(self) -> None:
        """Wake the calls whose time has come."""
        now = self.now()
        for key, parked in list(self.parked.items()):
            if parked.due is not None and parked.due <= now:
                self._wake(key, TIMED_OUT)

    @property
    def next_due(self) -> float | None:
        """When the next parked call wakes by itself."""
        return min((parked.due for parked in self.parked.values() if parked.due is not None), default=None)

    def _wake(self, key: str, value: Any) -> None:
        parked = self.parked.get(key)
        if parked is not None and not parked.future.done():
            self._leave(key, parked)
            parked.future.set_result(value)

    def _leave(self, key: str, parked: Parked) -> None:
        if self.parked.get(key) is parked:
            del self.parked[key]
            if parked.body is not None:
                parked.body.parked -= 1
            self._checks += 1

    def look_for_quiet(self) -> None:
        """See whether all there is to do is to wait."""
        self._checks += 1
        if not self._is_quiet():
            self.quiet.clear()
        elif self.branches:
            self._loop.call_later(QUIET_SECONDS, self._still_quiet, self._checks)
        else:
            self._loop.call_soon(self._still_quiet, self._checks)

    @property
    def at_work(self) -> bool:
        """Whether a task is at work."""
        return any(body.at_work for body in self._bodies)

    def _is_quiet(self) -> bool:
        return bool(self.parked) and not self._writes and not self.at_work

    def _still_quiet(self, check: int) -> None:
        if check == self._checks and self._is_quiet():
            self.quiet.set()

    def _joined(self, branch: asyncio.Future[Any]) -> None:
        self.branches.add(branch)
        branch.add_done_callback(self.branches.discard)


class Refused(Exception):
    """The transaction found that what was to be written is not true any more."""


def _tasks(run: Run) -> Steps[tuple[int, list[Stored]]]:
    newest = yield from log.last(run.scope, run.id)
    rows = yield from log.read_types(run.scope, run.id, TOLD)
    return (newest.seq if newest else 0), [row.stored() for row in rows]


_journal: ContextVar[Journal | None] = ContextVar("flux_journal", default=None)


def journal_here() -> Journal | None:
    """The journal of the workflow whose code asks; None outside one."""
    return _journal.get()


@contextlib.asynccontextmanager
async def writing(journal: Journal) -> AsyncIterator[asyncio.Task[None]]:
    """Run the writer of a journal."""
    writer = asyncio.create_task(journal.write_forever())
    try:
        yield writer
    finally:
        writer.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait((writer,))


def set_journal(journal: Journal) -> None:
    """Make a journal that of the code of this context."""
    _journal.set(journal)


def names_of(parked: Iterable[Parked]) -> str:
    """What parked calls wait for, in the words of `waiting_for`."""
    kinds = {one.waiting_for for one in parked}
    return next((kind for kind in (*FOR_PEOPLE, *TALK, "child") if kind in kinds), "timer")
