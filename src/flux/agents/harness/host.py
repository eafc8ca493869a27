"""The process of a program that runs sessions for its own code: one database, and what runs a session to its rest."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from flux.agents.code.stores import SessionKey, SessionStore, loaded
from flux.agents.harness.calls import CallHandle
from flux.agents.process import Process, open_process
from flux.deltas import decode_delta
from flux.engine.dispatching.upkeep import to_the_end
from flux.engine.intake.admitting import start_session_steps, title_of
from flux.engine.intake.inputs import NewSession
from flux.engine.running.run import Executor
from flux.errors import FluxError, SessionBusy, SessionEnded, SessionExists, SessionNotFound
from flux.events import DeltaEvent, Entry, Stored, UnknownEntry, UserSaid, decode
from flux.settings import Settings, load_settings
from flux.store import callers, executions, log
from flux.store.callers import Entered
from flux.store.channel import Cursor, Frame
from flux.store.database import LOCAL, Scope, one
from flux.store.executions import CALLER, Execution
from flux.tools.cancel import CancelSignal
from flux.watch import RunWatch

#: What readers of a session are shown.
Shown = Entry | UnknownEntry | DeltaEvent
#: Seconds between two looks at a session that somebody else is just giving back.
LOOK_SECONDS = 0.2


class Host:
    """Runs sessions in this process, each by what its caller wants done in it."""

    def __init__(self, process: Process, scope: Scope = LOCAL) -> None:
        self.process = process
        self.scope = scope
        self._busy: set[str] = set()
        self._working: set[asyncio.Task[Any]] = set()
        self._going_on: dict[str, asyncio.Task[Execution]] = {}
        self._left: dict[str, Executor] = {}

    async def find(self, agent: str, instance: str, name: str) -> Execution | None:
        """The open session of that name; None when there is none."""
        return await self.process.database.read(callers.find(self.scope, agent, instance, name))

    async def create(self, agent: str, instance: str, name: str, store: SessionStore | None = None) -> Execution:
        """A new session, with what a store keeps of it.

        :raises SessionExists: there is one, perhaps of somebody else
        :raises InvalidInput: what the store keeps is no conversation
        """
        history = await loaded(store, SessionKey(agent, instance, name)) if store is not None else None
        new = NewSession(agent, "", instance=instance, name=name, pool=CALLER)
        program = start_session_steps(self.scope, new, None, self.process.dispatch, history=history)
        admitted, rows = await self.process.database.write(program)
        self.process.feed.publish(admitted.id, rows)
        return await self.row(admitted.id)

    async def found_or_created(
        self, agent: str, instance: str, name: str, store: SessionStore | None = None
    ) -> Execution:
        """The session of that name, made if there is none.

        :raises SessionExists: somebody else has one
        """
        found = await self.find(agent, instance, name)
        if found is not None:
            return found
        try:
            return await self.create(agent, instance, name, store)
        except SessionExists:
            found = await self.find(agent, instance, name)
            if found is None:
                raise
            return found

    async def row(self, id: str) -> Execution:
        """A session's row.

        :raises SessionNotFound: it was deleted
        """
        row = await self.process.database.single(executions.get(self.scope, id))
        if row is None:
            raise SessionNotFound("there is no such session any more; it was deleted")
        return row

    async def close(self) -> None:
        """End what is under way."""
        working = {task for task in (*self._working, *self._going_on.values()) if not task.done()}
        for task in working:
            task.cancel()
        if working:
            await asyncio.wait(working)

    def _note_work(self) -> None:
        task = asyncio.current_task()
        if task is not None and task not in self._working:
            self._working.add(task)
            task.add_done_callback(self._working.discard)

    async def check_rests(self, id: str) -> None:
        """That nothing is done in a session.

        :raises SessionBusy: it is working
        """
        if (await self.row(id)).state not in ("idle", "ended"):
            raise SessionBusy("the session is working or waits for an answer; cancel() it first")

    async def delete(self, id: str) -> None:
        """Remove a session.

        :raises SessionBusy: it is working
        """
        await self.check_rests(id)
        with suppress(SessionEnded):
            await self.process.sessions.end(self.scope, id)
        await self.process.sessions.delete(self.scope, id)

    def occupy(self, id: str) -> None:
        """Begin an operation in a session; `leave` ends it.

        :raises SessionBusy: another one is under way
        """
        if id in self._busy:
            raise SessionBusy("an operation is under way in this session; wait for it, or use another session")
        self._busy.add(id)

    def leave(self, id: str) -> None:
        """The operation is over."""
        self._busy.discard(id)

    async def run(
        self,
        id: str,
        entries: Sequence[Entry],
        work: Executor,
        signal: CancelSignal,
        *,
        run_id: str,
        text: str = "",
    ) -> list[Stored]:
        """Take a session, write its first entries, and let `work` run it until it rests; what was written since.

        `run_id` is that of the run which begins, and which `signal` stops. The first `text` becomes the title.

        :raises SessionBusy, SessionEnded, SessionNotFound: it cannot be taken
        """
        self._note_work()
        entered = await self._entered(id, entries, run_id, text)
        self.process.session_executor.own[id] = work
        try:
            self.process.feed.publish(id, entered.rows)
            with self._stopped_by(signal, id):
                await self.process.runner.run_taken(entered.execution)
                await self._until_rest(id)
        except asyncio.CancelledError:
            await to_the_end(self._abandon(id))
            raise
        finally:
            self.process.session_executor.own.pop(id, None)
        return await self.written(id, entered.execution.head - len(entries))

    async def _entered(self, id: str, entries: Sequence[Entry], run_id: str, text: str) -> Entered:
        """Take a session. Where something is left to do in it, that is done first."""
        await self._gone_on(id)
        for last in (False, True):
            program = callers.enter(self.scope, id, self.process.who, entries, run_id, title_of(text))
            try:
                return await self.process.database.write(program)
            except SessionBusy:
                row = await self.row(id)
                if last or row.state != "scheduled" or id not in self._left:
                    raise
                self.go_on(row, self._left[id])
                await self._gone_on(id)
        raise AssertionError

    async def events(self, id: str, message: str, handle: CallHandle[Any]) -> AsyncGenerator[Shown, None]:
        """What happens in a session until the run of a message has ended, or its operation failed before it began."""
        row = await self.row(id)
        watch, admitted = RunWatch(message), False
        over = asyncio.ensure_future(handle.ended())
        async with aclosing(self.process.feed.follow(self.scope, id, Cursor(row.head, row.epoch))) as batches:
            while watch.state != "ended":
                batch = asyncio.ensure_future(anext(batches))
                if not admitted:
                    await asyncio.wait((batch, over), return_when=asyncio.FIRST_COMPLETED)
                    if not batch.done():
                        await _given_up(batch)
                        break
                for event in map(_event, await batch):
                    admitted = admitted or (isinstance(event, UserSaid) and event.id == message)
                    watch.feed(event)
                    yield event
        over.cancel()

    @contextmanager
    def _stopped_by(self, signal: CancelSignal, id: str) -> Iterator[None]:
        stopping: list[asyncio.Task[object]] = []
        forget = signal.then(lambda _: stopping.append(asyncio.create_task(self._stop(id), name=f"stop {id}")))
        try:
            yield
        finally:
            forget()

    async def _stop(self, id: str) -> None:
        with suppress(SessionEnded, SessionNotFound):
            await self.process.sessions.cancel(self.scope, id)

    async def written(self, id: str, after: int = 0) -> list[Stored]:
        """The entries of a session, or of one that it has driven."""
        rows = await self.process.database.single(log.read(self.scope, id, after))
        return [row.stored() for row in rows]

    async def _abandon(self, id: str) -> None:
        """End what was being done in a session: this process leaves."""
        self.process.session_executor.own[id] = self.process.session_executor.settle
        await self.process.runner.run(id)

    def go_on(self, row: Execution, work: Executor) -> None:
        """Go on in the background with what was left to do: an answer or a message came while no code ran the session.

        `work` does what is left in this session, now and later.
        """
        self._left[row.id] = work
        if row.state == "scheduled" and row.pool == CALLER and row.id not in self._going_on:
            task = asyncio.create_task(self._go_on(row.id, work), name=f"go on with {row.id}")
            self._going_on[row.id] = task
            task.add_done_callback(lambda _: self._going_on.pop(row.id, None))

    async def _go_on(self, id: str, work: Executor) -> Execution:
        self.process.session_executor.own[id] = work
        try:
            return await self._until_rest(id)
        finally:
            self.process.session_executor.own.pop(id, None)

    async def _gone_on(self, id: str) -> None:
        """Wait for what goes on in the background, unless that waits for a person."""
        task = self._going_on.get(id)
        while task is not None and not task.done() and (await self.row(id)).state != "waiting":
            await asyncio.wait((task,), timeout=LOOK_SECONDS)

    async def _until_rest(self, id: str) -> Execution:
        """Run a session until it is idle or has ended; what it waits for, wait for it too."""
        while True:
            row = await self.row(id)
            match row.state:
                case "idle" | "ended":
                    return row
                case "waiting":
                    await self._news(row)
                case "scheduled":
                    await asyncio.sleep(max(0.0, (row.due or 0.0) - await self._now()))
                    await self.process.runner.run(id)
                case _ if row.worker == self.process.worker_id:
                    await self.process.recovery.sweep()  # a hand-back whose answer was lost
                    await asyncio.sleep(LOOK_SECONDS)
                case _:
                    raise FluxError("the session was taken over by another process", debug=f"{id} of {row.worker}")

    async def _news(self, row: Execution) -> None:
        """Wait until something is written to a session, or its time has come."""
        delay = None if row.due is None else max(0.0, row.due - await self._now())
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(delay),
                aclosing(self.process.feed.follow(self.scope, row.id, Cursor(row.head, row.epoch))) as batches,
            ):
                async for batch in batches:
                    if any(frame.entry for frame in batch):
                        return
        await self.process.database.write(executions.wake(row.id))

    async def _now(self) -> float:
        (now,), *_ = await self.process.database.read(one("select :now"))
        return float(now)


def _event(frame: Frame) -> Shown:
    return decode(frame.data) if frame.entry else decode_delta(frame.data)


async def _given_up(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait((task,))


class Keeper:
    """Holds a host open, in a task of its own: a loop that ends cancels that, so nobody has to close anything."""

    def __init__(self, settings: Settings) -> None:
        self._closing = asyncio.Event()
        self._host: asyncio.Future[Host] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep(settings), name="flux host")
        self._task.add_done_callback(self._tell)

    @property
    def open(self) -> bool:
        """Whether it can be used, or may become so."""
        return not self._task.done() and not self._closing.is_set()

    async def host(self) -> Host:
        """The host, once it is open."""
        return await asyncio.shield(self._host)

    async def close(self) -> None:
        """Close it; what is under way is ended first."""
        self._closing.set()
        await asyncio.wait((self._task,))

    async def _keep(self, settings: Settings) -> None:
        async with open_process(settings, environment=os.environ, workspace=Path.cwd(), caller=True) as process:
            beating = asyncio.create_task(process.recovery.keep_beating())
            host = Host(process)
            try:
                await process.recovery.sweep()  # what a process like this one has left when it died
                self._host.set_result(host)
                await self._closing.wait()
            finally:
                await host.close()
                beating.cancel()
                await asyncio.wait((beating,))
                await process.recovery.leave()

    def _tell(self, task: asyncio.Task[None]) -> None:
        if not self._host.done():
            error = None if task.cancelled() else task.exception()
            self._host.set_exception(error or FluxError("the loop has ended"))
            self._host.exception()  # who waits for it hears of it


_keepers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], Keeper]] = WeakKeyDictionary()


async def host() -> Host:
    """The host of this loop, for the settings as they are now; it is closed with the loop, or by `close_hosts`."""
    settings = load_settings(os.environ)
    keepers = _keepers.setdefault(asyncio.get_running_loop(), {})
    key = (settings.database, str(settings.home))
    if key not in keepers or not keepers[key].open:
        keepers[key] = Keeper(settings)
    return await keepers[key].host()


async def close_hosts() -> None:
    """Close what `host` has opened in this loop. What code has left running is ended."""
    for keeper in _keepers.pop(asyncio.get_running_loop(), {}).values():
        await keeper.close()
